// A CUDA driver on host memory, for tests of what calls one: device memory is malloc, streams run what was queued into
// them only when somebody waits, so a result that is read too early is wrong here too.
//
// fake_* are the test's own: how many GPUs, which call fails next, what is alive, and work of a caller's own.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef void (*Work)(void*);
enum { kContexts = 2, kTypes = 6, kMaxOps = 512 };
enum { kMemory, kHost, kStreams, kEvents, kGraphs, kRetained };

typedef struct {
  Work work;
  void* argument;
  void* into;
  const void* source;
  size_t bytes;
  void* event;
} Op;
typedef struct {
  Op ops[kMaxOps];
  int count;
} Queue;
typedef struct {
  Queue queue;
  int context, capturing;
  Queue recorded;
} Stream;
typedef struct {
  Stream* stream;
  int passed;
} Event;
typedef struct Block {
  struct Block* next;
  uintptr_t begin, end;
  int context, host;
} Block;

static pthread_mutex_t lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int live[kTypes], devices = 1, version = 13000, integrated = 0, fail_code = 0, fail_after = 0;
static size_t total = (size_t)8 << 30, used = 0;
static char fail_name[64], name[64] = "Fake GPU";
static Block* blocks;
static Stream* streams[64];
static __thread int current[16];
static __thread int depth;

static void start(void) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lock, &kind);
}

static int failing(const char* function) {
  pthread_once(&once, start);
  if (strcmp(function, fail_name) || fail_after-- > 0) return 0;
  return fail_code;
}
#define CALL(...)              \
  int bad = failing(__func__); \
  if (bad) return bad;         \
  pthread_mutex_lock(&lock)
#define DONE                   \
  pthread_mutex_unlock(&lock); \
  return 0
#define FAIL(code)               \
  do {                           \
    pthread_mutex_unlock(&lock); \
    return code;                 \
  } while (0)
#define NEED_CONTEXT \
  if (!depth) FAIL(201)

// Work in Python may set off the collection of garbage, and that a call which comes back here.
static int running;
static void run_ops(Stream* stream, Queue* queue, const void* until) {
  if (running++) {
    running--;
    return;
  }
  int done = 0;
  while (done < queue->count) {
    Op op = queue->ops[done++];
    if (op.work)
      op.work(op.argument);
    else if (op.event)
      ((Event*)op.event)->passed = 1;
    else
      memcpy(op.into, op.source, op.bytes);
    if (until && op.event == until) break;
  }
  memmove(queue->ops, queue->ops + done, (size_t)(queue->count - done) * sizeof(Op));
  queue->count -= done;
  running--;
}
static void run_all(void) {
  for (int i = 0; i < 64; i++)
    if (streams[i]) run_ops(streams[i], &streams[i]->queue, 0);
}
static void put(Stream* stream, Op op) {
  Queue* queue = stream->capturing ? &stream->recorded : &stream->queue;
  if (queue->count == kMaxOps) abort();
  queue->ops[queue->count++] = op;
}

void fake_reset(void) {
  pthread_once(&once, start);
  devices = 1, version = 13000, integrated = 0, fail_code = 0, fail_after = 0, fail_name[0] = 0;
  total = (size_t)8 << 30;
}
void fake_configure(int count, int driver, int shares, size_t bytes) {
  devices = count, version = driver, integrated = shares, total = bytes;
}
void fake_fail(const char* function, int code, int after) {
  strncpy(fail_name, function, 63);
  fail_code = code, fail_after = after;
}
void fake_forget(void) { memset(live, 0, sizeof live), used = 0; }
int fake_live(int type) { return live[type]; }
int fake_depth(void) { return depth; }
size_t fake_used(void) { return used; }
void fake_enqueue(void* stream, Work work, void* argument) { put(stream, (Op){.work = work, .argument = argument}); }

CUresult cuInit(unsigned flags) {
  CALL();
  if (!devices) FAIL(100);
  DONE;
}
CUresult cuDriverGetVersion(int* value) {
  CALL();
  *value = version;
  DONE;
}
CUresult cuDeviceGetCount(int* value) {
  CALL();
  *value = devices;
  DONE;
}
CUresult cuDeviceGet(int* device, int index) {
  CALL();
  *device = index;
  DONE;
}
CUresult cuDeviceGetName(char* into, int size, int device) {
  CALL();
  strncpy(into, name, size);
  DONE;
}
CUresult cuDeviceTotalMem_v2(size_t* value, int device) {
  CALL();
  *value = total;
  DONE;
}
CUresult cuDeviceGetAttribute(int* value, int number, int device) {
  CALL();
  *value = number == 75 ? 8 : number == 76 ? 6 : number == 16 ? 48 : number == 18 ? integrated : 1;
  DONE;
}
CUresult cuDevicePrimaryCtxRetain(void** context, int device) {
  CALL();
  live[kRetained]++;
  *context = (void*)(uintptr_t)(device + 1);
  DONE;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) {
  CALL();
  live[kRetained]--;
  DONE;
}
CUresult cuCtxPushCurrent_v2(void* context) {
  CALL();
  current[depth++] = (int)(uintptr_t)context;
  DONE;
}
CUresult cuCtxPopCurrent_v2(void** context) {
  CALL();
  NEED_CONTEXT;
  *context = (void*)(uintptr_t)current[--depth];
  DONE;
}
CUresult cuCtxGetCurrent(void** context) {
  CALL();
  *context = depth ? (void*)(uintptr_t)current[depth - 1] : 0;
  DONE;
}

static void* take(size_t bytes, int host) {
  Block* block = malloc(sizeof(Block));
  void* memory = aligned_alloc(512, (bytes + 511) / 512 * 512);
  memset(memory, 0xff, bytes);  // NaN in every float, so that memory which nobody wrote shows
  *block = (Block){blocks, (uintptr_t)memory, (uintptr_t)memory + bytes, current[depth - 1], host};
  blocks = block;
  live[host ? kHost : kMemory]++;
  if (!host) used += bytes;
  return memory;
}
static int give(void* memory, int host) {
  for (Block** at = &blocks; *at; at = &(*at)->next) {
    Block* block = *at;
    if (block->begin != (uintptr_t)memory || block->host != host) continue;
    run_all();
    *at = block->next;
    if (!host) used -= block->end - block->begin;
    live[host ? kHost : kMemory]--;
    free(memory);
    free(block);
    return 0;
  }
  return 1;
}
CUresult cuMemAlloc_v2(unsigned long long* pointer, size_t bytes) {
  CALL();
  NEED_CONTEXT;
  if (used + bytes > total) FAIL(2);
  *pointer = (uintptr_t)take(bytes, 0);
  DONE;
}
CUresult cuMemFree_v2(unsigned long long pointer) {
  CALL();
  NEED_CONTEXT;
  int code = give((void*)(uintptr_t)pointer, 0);
  FAIL(code);
}
CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  CALL();
  NEED_CONTEXT;
  *pointer = take(bytes, 1);
  DONE;
}
CUresult cuMemFreeHost(void* pointer) {
  CALL();
  NEED_CONTEXT;
  int code = give(pointer, 1);
  FAIL(code);
}
CUresult cuMemHostGetDevicePointer_v2(unsigned long long* pointer, void* host, unsigned flags) {
  CALL();
  NEED_CONTEXT;
  *pointer = (uintptr_t)host;
  DONE;
}
CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* all) {
  CALL();
  NEED_CONTEXT;
  *free_bytes = total - used;
  *all = total;
  DONE;
}
CUresult cuPointerGetAttribute(int* value, int attribute, unsigned long long pointer) {
  CALL();
  for (Block* block = blocks; block; block = block->next)
    if (pointer >= block->begin && pointer < block->end) {
      *value = block->context - 1;
      DONE;
    }
  FAIL(1);
}
CUresult cuMemcpyHtoDAsync_v2(unsigned long long into, const void* source, size_t bytes, Stream* stream) {
  CALL();
  NEED_CONTEXT;
  put(stream, (Op){.into = (void*)(uintptr_t)into, .source = source, .bytes = bytes});
  DONE;
}
CUresult cuMemcpyDtoHAsync_v2(void* into, unsigned long long source, size_t bytes, Stream* stream) {
  CALL();
  NEED_CONTEXT;
  put(stream, (Op){.into = into, .source = (void*)(uintptr_t)source, .bytes = bytes});
  DONE;
}
CUresult cuStreamCreate(Stream** stream, unsigned flags) {
  CALL();
  NEED_CONTEXT;
  *stream = calloc(1, sizeof(Stream));
  (*stream)->context = current[depth - 1];
  for (int i = 0; i < 64; i++)
    if (!streams[i]) {
      streams[i] = *stream;
      break;
    }
  live[kStreams]++;
  DONE;
}
CUresult cuStreamDestroy_v2(Stream* stream) {
  CALL();
  NEED_CONTEXT;
  for (int i = 0; i < 64; i++)
    if (streams[i] == stream) streams[i] = 0;
  free(stream);
  live[kStreams]--;
  DONE;
}
CUresult cuStreamSynchronize(Stream* stream) {
  CALL();
  NEED_CONTEXT;
  if ((uintptr_t)stream <= 2)
    run_all();
  else if (stream->capturing)
    FAIL(900);
  else
    run_ops(stream, &stream->queue, 0);
  DONE;
}
CUresult cuStreamGetCtx(Stream* stream, void** context) {
  CALL();
  *context = (void*)(uintptr_t)stream->context;
  DONE;
}
CUresult cuEventCreate(Event** event, unsigned flags) {
  CALL();
  NEED_CONTEXT;
  *event = calloc(1, sizeof(Event));
  live[kEvents]++;
  DONE;
}
CUresult cuEventDestroy_v2(Event* event) {
  CALL();
  NEED_CONTEXT;
  run_all();
  free(event);
  live[kEvents]--;
  DONE;
}
CUresult cuEventRecord(Event* event, Stream* stream) {
  CALL();
  NEED_CONTEXT;
  event->stream = stream, event->passed = 0;
  put(stream, (Op){.event = event});
  DONE;
}
CUresult cuEventSynchronize(Event* event) {
  CALL();
  NEED_CONTEXT;
  if (event->stream && !event->passed) run_ops(event->stream, &event->stream->queue, event);
  DONE;
}
CUresult cuEventElapsedTime(float* value, Event* start_event, Event* end) {
  CALL();
  NEED_CONTEXT;
  if (!start_event->passed || !end->passed) FAIL(600);
  *value = 1.5f;
  DONE;
}
CUresult cuStreamBeginCapture_v2(Stream* stream, int mode) {
  CALL();
  NEED_CONTEXT;
  stream->capturing = 1, stream->recorded.count = 0;
  DONE;
}
CUresult cuStreamEndCapture(Stream* stream, void** graph) {
  CALL();
  NEED_CONTEXT;
  stream->capturing = 0;
  *graph = malloc(sizeof(Queue));
  memcpy(*graph, &stream->recorded, sizeof(Queue));
  DONE;
}
CUresult cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long flags) {
  CALL();
  NEED_CONTEXT;
  *ready = malloc(sizeof(Queue));
  memcpy(*ready, graph, sizeof(Queue));
  live[kGraphs]++;
  DONE;
}
CUresult cuGraphDestroy(void* graph) {
  CALL();
  free(graph);
  DONE;
}
CUresult cuGraphExecDestroy(void* graph) {
  CALL();
  free(graph);
  live[kGraphs]--;
  DONE;
}
CUresult cuGraphLaunch(Queue* graph, Stream* stream) {
  CALL();
  NEED_CONTEXT;
  for (int i = 0; i < graph->count; i++) put(stream, graph->ops[i]);
  DONE;
}
CUresult cuGetErrorString(CUresult code, const char** text) {
  static const char* words[] = {"no error", "invalid argument", "out of memory"};
  const char* known = code == 719 ? "unspecified launch failure" : code == 700 ? "an illegal memory access" : 0;
  if (code >= 0 && code < 3) known = words[code];
  *text = known ? known : "unrecognized error code";
  return !known;
}
