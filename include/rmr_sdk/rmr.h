/* RMR SDK: fuse a T1 and a FLAIR volume of the brain and segment lesions, from C and C++, without Python.
 *
 * Research software, not a medical device. Not for diagnosis or for decisions about treatment.
 *
 * Every struct begins with `struct_size`: set it to sizeof, or use the rmr_*_init functions. A newer library takes the
 * structs of an older header, and an older library takes those of a newer one as long as the fields it does not know
 * are zero. Functions that can fail return a status; rmr_last_error says what went wrong. No function throws, prints,
 * or touches signal handlers. docs/c-abi.md tells the rest.
 */
#ifndef RMR_SDK_RMR_H
#define RMR_SDK_RMR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define RMR_API
#else
#define RMR_API __attribute__((visibility("default")))
#endif

#define RMR_ABI_VERSION 1

/* Status: the families of errors, numbered as the exit codes of the command line. */
typedef int32_t rmr_status;
enum {
  RMR_OK = 0,
  RMR_INTERNAL = 1,   /* a fault of the library */
  RMR_USAGE = 2,      /* a null pointer, a closed handle, a struct of an unknown version */
  RMR_INPUT = 3,      /* the study or an option cannot be used */
  RMR_BUNDLE = 4,     /* the bundle is missing, damaged, or does not fit */
  RMR_ENGINE = 5,     /* the engine, the device or its memory */
  RMR_CANCELLED = 130 /* by the progress callback, or the deadline passed */
};

/* What the last call that failed on this thread has to say. */
typedef struct rmr_error {
  uint32_t struct_size;
  rmr_status status;  /* RMR_OK where no call has failed on this thread */
  char kind[32];      /* the class of the error, as in Python: "StudyError", "GeometryError", "ChecksumError", ... */
  char message[1024]; /* what is wrong, where, and what to do; no path, name or date of a patient */
} rmr_error;

typedef struct rmr_pipeline rmr_pipeline;

typedef int32_t rmr_precision;
enum { RMR_PRECISION_AUTO = 0, RMR_FP32 = 1, RMR_BF16 = 2, RMR_FP16 = 3, RMR_INT8 = 4 };

typedef int32_t rmr_dtype;
enum { RMR_UINT8 = 1, RMR_INT16 = 2, RMR_UINT16 = 3, RMR_FLOAT32 = 4 };

typedef int32_t rmr_align;
enum {
  RMR_ALIGN_NONE = 0,  /* all contrasts lie on the reference's grid; anything else is refused */
  RMR_ALIGN_HEADER = 1 /* contrasts on other grids are resampled, their affines taken at their word */
};

typedef int32_t rmr_non_finite;
enum { RMR_NON_FINITE_ERROR = 0, RMR_NON_FINITE_ZERO = 1 };

typedef int32_t rmr_stage;
enum { RMR_STAGE_PREPARE = 0, RMR_STAGE_INFER = 1, RMR_STAGE_MEASURE = 2 };

#define RMR_KEEP_ALL (-1.0) /* a level below which nothing is dropped */

typedef struct rmr_open_options {
  uint32_t struct_size;
  rmr_precision precision; /* RMR_PRECISION_AUTO: the most exact that the bundle has */
  int32_t threads;         /* 1 to 1024; 0: all cores */
  uint32_t reserved;
  const char* cache_dir; /* where compiled networks are kept; NULL or "": nowhere */
  double max_memory_mib; /* most that a run may plan beside the network and the caller's arrays; 0: no limit */
  /* Which lesions are kept. Each is a level, 0 for what the bundle states, or RMR_KEEP_ALL. */
  double lesion_threshold;         /* least probability of a voxel of a lesion, whatever the load */
  double least_lesion_probability; /* least mean probability of a lesion */
  double least_white_matter;       /* least share of white matter around a lesion */
  double least_lesion_mm3;         /* least volume of what these leave of a lesion, up to 1000 mm3 */
} rmr_open_options;

/* What a pipeline is. Strings end in a zero byte. */
typedef struct rmr_info {
  uint32_t struct_size;
  rmr_precision precision; /* computed in */
  int32_t threads;
  uint32_t contrasts;   /* names: rmr_contrast_name */
  uint32_t reference;   /* index of the default reference */
  uint32_t classes;     /* 0: the bundle only fuses; names: rmr_class_name */
  int32_t lesion_class; /* -1: none */
  uint32_t tiles_at_once;
  int64_t tile_shape[3]; /* along the axes of `orientation` */
  double spacing_mm[3];
  char orientation[4];
  char bundle[65];
  char bundle_version[65];
  char bundle_sha256[65]; /* of the manifest, which holds those of the files */
  char engine_version[128];
  char device_name[128];
  char warning[256]; /* empty, or what the caller should know about how it was opened */
} rmr_info;

/* One contrast. The voxels are read where they lie and must stay as they are during a call. */
typedef struct rmr_volume {
  uint32_t struct_size;
  rmr_dtype dtype;
  const char* contrast; /* as in the bundle: "T1w", "FLAIR" */
  const void* data;     /* voxel (0, 0, 0) */
  size_t bytes;         /* that belong to the array */
  int64_t shape[3];
  int64_t strides[3];  /* in bytes, may be negative; all 0: C order, the last axis contiguous */
  double affine[4][4]; /* voxel index -> RAS mm */
} rmr_volume;

typedef struct rmr_study {
  uint32_t struct_size;
  uint32_t count;
  const rmr_volume* volumes; /* `count` in a row, `volumes[0].struct_size` apart */
} rmr_study;

typedef struct rmr_progress {
  uint32_t struct_size;
  rmr_stage stage;
  int64_t done, total;
} rmr_progress;

/* Called between steps on the thread that called rmr_run; 0 goes on, anything else cancels. It must not throw. */
typedef int32_t (*rmr_progress_callback)(void* user, const rmr_progress* progress);

typedef struct rmr_run_options {
  uint32_t struct_size;
  rmr_align align;
  rmr_non_finite non_finite;
  uint32_t reserved;
  double overlap;        /* of neighbouring tiles, 0 to 0.9; rmr_run_options_init: 0.25 */
  double deadline_s;     /* from the call on; 0: none */
  const char* reference; /* whose grid and intensity scale results come on; NULL: the bundle's */
  rmr_progress_callback progress;
  void* user;
} rmr_run_options;

typedef struct rmr_plan_info {
  uint32_t struct_size;
  uint32_t tiles_at_once; /* within max_memory_mib */
  int64_t tiles, tiles_skipped;
  int64_t common_shape[3]; /* of the grid that tiles are cut from, along the axes of the bundle's orientation */
  int64_t bytes;           /* that the run will take at most, beside the network and the caller's arrays */
  int64_t least_bytes;     /* the same with one tile at a time */
  int64_t output_shape[3]; /* of the reference */
  int32_t resampled;       /* whether the common grid is another than the reference's */
  uint32_t reserved;
} rmr_plan_info;

/* An array of the caller that a run fills in, on the reference's grid. */
typedef struct rmr_array {
  void* data;         /* voxel (0, 0, 0); NULL: not wanted */
  size_t bytes;       /* that belong to the array */
  int64_t strides[3]; /* in bytes, may be negative; all 0: C order */
} rmr_array;

typedef struct rmr_lesion {
  uint32_t struct_size;
  uint32_t id; /* 1 for the largest */
  double volume_ml;
  double centroid_mm[3]; /* RAS */
  double mean_probability;
  int64_t voxels;
} rmr_lesion;

typedef struct rmr_outputs {
  uint32_t struct_size;
  uint32_t lesion_capacity;
  rmr_array fused;       /* float32, on the reference's intensity scale */
  rmr_array labels;      /* uint8, indices of classes */
  rmr_array probability; /* float32, of the lesion class */
  rmr_lesion* lesions;   /* room for `lesion_capacity`, set their struct_size; NULL: not wanted */
  double* class_ml;      /* room for `class_capacity` volumes of classes in ml; NULL: not wanted */
  char* warnings;        /* room for `warnings_capacity` bytes: one line each, cut where it ends; NULL: not wanted */
  uint32_t class_capacity;
  uint32_t warnings_capacity;
  /* Filled in. */
  uint32_t lesion_count; /* of all lesions found, those beyond the capacity too */
  uint32_t warning_count;
  int64_t tiles, tiles_skipped;
  double prepare_s, infer_s, measure_s;
  double lesion_threshold;  /* from which on voxels of lesions were kept, at the load that was found; 0: all were */
  uint32_t lesions_dropped; /* connected lesions, or pieces of them that a threshold parted,
                               of which nothing was kept */
  uint32_t reserved;
} rmr_outputs;

RMR_API uint32_t rmr_abi_version(void); /* RMR_ABI_VERSION of the library */
RMR_API const char* rmr_version(void);  /* of the SDK, such as "0.1.0" */
RMR_API void rmr_last_error(rmr_error* error);

/* Opens a bundle, a folder or a .zip, and makes its network ready; *pipeline is NULL where that fails. */
RMR_API rmr_status rmr_open(const char* bundle, const rmr_open_options* options, rmr_pipeline** pipeline);

/* Releases a pipeline and sets *pipeline to NULL; again is harmless. No other call on it may be running. */
RMR_API rmr_status rmr_close(rmr_pipeline** pipeline);

RMR_API rmr_status rmr_describe(const rmr_pipeline* pipeline, rmr_info* info);
RMR_API const char* rmr_contrast_name(const rmr_pipeline* pipeline, uint32_t index); /* NULL beyond the last */
RMR_API const char* rmr_class_name(const rmr_pipeline* pipeline, uint32_t index);    /* NULL beyond the last */

/* Checks a study and says what a run with the same options would take. `options` may be NULL. */
RMR_API rmr_status rmr_plan(const rmr_pipeline* pipeline, const rmr_study* study, const rmr_run_options* options,
                            rmr_plan_info* plan);

/* Fuses and segments a study. Safe from several threads at once. What the arrays of `outputs` hold after a failure is
 * undefined. `options` may be NULL. */
RMR_API rmr_status rmr_run(const rmr_pipeline* pipeline, const rmr_study* study, const rmr_run_options* options,
                           rmr_outputs* outputs);

/* Structs with their defaults. */
#define RMR_CLEAR(value, type)           \
  do {                                   \
    memset((value), 0, sizeof(type));    \
    (value)->struct_size = sizeof(type); \
  } while (0)

static inline void rmr_error_init(rmr_error* error) { RMR_CLEAR(error, rmr_error); }
static inline void rmr_open_options_init(rmr_open_options* options) { RMR_CLEAR(options, rmr_open_options); }
static inline void rmr_info_init(rmr_info* info) { RMR_CLEAR(info, rmr_info); }
static inline void rmr_volume_init(rmr_volume* volume) { RMR_CLEAR(volume, rmr_volume); }
static inline void rmr_study_init(rmr_study* study) { RMR_CLEAR(study, rmr_study); }
static inline void rmr_plan_info_init(rmr_plan_info* plan) { RMR_CLEAR(plan, rmr_plan_info); }
static inline void rmr_lesion_init(rmr_lesion* lesion) { RMR_CLEAR(lesion, rmr_lesion); }
static inline void rmr_outputs_init(rmr_outputs* outputs) { RMR_CLEAR(outputs, rmr_outputs); }
static inline void rmr_run_options_init(rmr_run_options* options) {
  RMR_CLEAR(options, rmr_run_options);
  options->overlap = 0.25;
}

#ifdef __cplusplus
}
#endif

#endif /* RMR_SDK_RMR_H */
