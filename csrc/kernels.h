// What: the launchers. rmr::cpu runs an op on host memory and returns when it is done; rmr::cuda puts it on a stream.
// Layout: `stream` is a cudaStream_t; every template exists for the types listed in its .cpp and .cu file.
// Source: own.
#pragma once

#include <vector>

#include "ops/blend.h"
#include "ops/components.h"
#include "ops/extract.h"
#include "ops/foreground.h"
#include "ops/resample.h"

// The voxel types that a source volume may have.
#define RMR_FOR_SOURCE_TYPES(apply) apply(uint8_t) apply(int16_t) apply(uint16_t) apply(float)

namespace rmr {

namespace cpu {

struct Component {
  int64_t voxels;
  int64_t first;  // C-order index of the first voxel
  double centroid[3];
  double mean;  // of the probability, 0 without one
};

template <class T, class O>
void extract(const Extract<T, O>& op, int threads);
template <class T, class O>
void extract(const ExtractSampled<T, O>& op, int threads);
template <class P>
void blend(const Blend<P>& op, int threads);
void clear(const Clear& op, int threads);
template <class T>
void occupancy(const Occupancy<T>& op, int threads);
template <class T>
bool any_above(const Source<T>& source, float threshold, const Index3& low, const Index3& high);
template <class T>
void resample(const ResampleNearest<T>& op, int threads);
template <class T>
void resample(const ResampleLinear<T>& op, int threads);
template <class T>
void resample(const ResampleArea<T>& op, int threads);

// Components of the voxels with one label, largest first, then by first voxel. `probability` and `map` (ids from 1)
// are (d, h, w) like the labels, or null.
std::vector<Component> components(const uint8_t* labels, const Index3& shape, uint8_t value, const float* probability,
                                  int32_t* map);

// What a component needs to stay: this mean probability, and of the other labels that its voxels touch this share of
// `around`, and this many voxels. One that touches nothing has no share to be too small. Of those that stay, a voxel
// needs `voxel`, and where that parts a component, each piece needs this share of the voxels of its largest; what is
// left is not looked at again.
struct Least {
  double probability = 0.0;
  uint8_t around = 0;
  double share = 0.0;
  double voxel = 0.0;
  int64_t voxels = 0;
  double piece = 0.0;
};

// Components of which nothing is left, and voxels that have another label now.
struct Dropped {
  int64_t components = 0;
  int64_t voxels = 0;
};

// Give the components and voxels that do not stay the label that the component's voxels touch most often, in place.
Dropped drop_components(uint8_t* labels, const Index3& shape, uint8_t value, const float* probability,
                        const Least& least);

}  // namespace cpu

namespace cuda {

template <class T, class O>
void extract(const Extract<T, O>& op, void* stream);
template <class T, class O>
void extract(const ExtractSampled<T, O>& op, void* stream);
template <class P>
void blend(const Blend<P>& op, void* stream);
void clear(const Clear& op, void* stream);
template <class T>
void occupancy(const Occupancy<T>& op, void* stream);
template <class T>
void resample(const ResampleNearest<T>& op, void* stream);
template <class T>
void resample(const ResampleLinear<T>& op, void* stream);
template <class T>
void resample(const ResampleArea<T>& op, void* stream);

int device_count();

// Where memory is, as the CUDA runtime sees it from the current device.
struct Location {
  enum Kind { kUnknown, kDevice, kShared } kind;  // kShared: managed, or page-locked memory of the host
  int device, current;
};
Location locate(const void* address);

// Makes what comes later on `stream` wait for what has been put on another stream of the same context so far.
void follow(void* stream, void* other);

}  // namespace cuda
}  // namespace rmr
