// What: what differs between g++ and nvcc, and how an op is run on a device.
// Layout: the only file that looks at __CUDACC__; everything else reads the same under both compilers.
// Source: own; without nvcc a launch is a loop, so that tests run the device launchers on any machine.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define RMR_HD __host__ __device__
#else
#define RMR_HD
#endif

// Row loops compiled for several instruction sets, the best one picked when the module loads. Every clone does the
// same IEEE operations in the same order (-ffp-contract=off), so the results do not depend on the pick.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define RMR_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define RMR_CLONES
#endif

// What reads and writes memory of another type, as wide words do.
#if defined(__GNUC__)
#define RMR_ALIAS __attribute__((may_alias))
#else
#define RMR_ALIAS
#endif

// A GPU converts to and from binary16 in one instruction, bit for bit what ops/half.h computes.
#ifdef __CUDA_ARCH__
#define RMR_HALF_INSTRUCTIONS 1
#else
#define RMR_HALF_INSTRUCTIONS 0
#endif

namespace rmr {

struct Index3 {
  int64_t d, h, w;
};

// The rows of a C-contiguous (d, h, w) block in order: where row `row` lies.
RMR_HD inline Index3 row_start(int64_t row, const Index3& shape) { return {row / shape.h, row % shape.h, 0}; }

namespace cuda {

// What the CUDA runtime refused or reported, `status` being its cudaError_t.
class Error : public std::runtime_error {
 public:
  Error(const std::string& what, int status) : std::runtime_error(what), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

constexpr int64_t kMostPlane = int64_t{1} << 31;  // steps of one plane of `launch`, so that 32-bit division finds them

inline void check_plane(const char* name, int64_t steps) {
  if (steps >= kMostPlane) throw std::length_error(std::string(name) + ": a plane of the volume is too large.");
}

// `launch` runs op(d, h, step) for every step of `shape`, in any order. `launch_teams` runs
// op.phase(p, team, thread, shared) for p = 0 .. kPhases - 1 one after the other, for all kThreads threads of each of
// `teams` teams; a team has memory of its own, and may read in a phase what it wrote in the one before. Both return
// before the device is done.
#ifdef __CUDACC__
constexpr int kThreads = 256;

// Blocks of threads that a multiprocessor must have room for, named by ops that would spill with the compiler's choice.
template <class Op, class = void>
constexpr int kLeastBlocks = 0;
template <class Op>
constexpr int kLeastBlocks<Op, std::void_t<decltype(Op::kLeastBlocks)>> = Op::kLeastBlocks;

inline void check_launch(const char* name) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) throw Error(std::string(name) + ": " + cudaGetErrorString(status), status);
}

template <class Op>
__global__ void __launch_bounds__(kThreads, kLeastBlocks<Op>)
    for_each_step(Op op, uint32_t planes, uint32_t rows, uint32_t steps) {
  const uint32_t at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= rows * steps) return;
  const uint32_t row = at / steps, step = at - row * steps;
  for (uint32_t plane = blockIdx.y; plane < planes; plane += gridDim.y) op(plane, row, step);
}

template <class Op>
void launch(const char* name, const Op& op, const Index3& shape, void* stream) {
  if (shape.d <= 0 || shape.h <= 0 || shape.w <= 0) return;
  check_plane(name, shape.h * shape.w);
  check_plane(name, shape.d);
  const auto planes = static_cast<uint32_t>(shape.d), steps = static_cast<uint32_t>(shape.h * shape.w);
  const dim3 grid((steps + kThreads - 1) / kThreads, planes < 65535 ? planes : 65535);
  for_each_step<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op, planes, static_cast<uint32_t>(shape.h),
                                                                          static_cast<uint32_t>(shape.w));
  check_launch(name);
}

template <class Op>
__global__ void __launch_bounds__(Op::kThreads, kLeastBlocks<Op>) for_each_team(Op op, int64_t teams) {
  __shared__ typename Op::Shared shared;
  for (int64_t team = blockIdx.x; team < teams; team += gridDim.x) {
#pragma unroll
    for (int phase = 0; phase < Op::kPhases; ++phase) {
      op.phase(phase, team, static_cast<int>(threadIdx.x), shared);
      __syncthreads();
    }
  }
}

template <class Op>
void launch_teams(const char* name, const Op& op, int64_t teams, void* stream) {
  if (teams <= 0) return;
  const auto grid = static_cast<unsigned>(teams < INT32_MAX ? teams : INT32_MAX);
  for_each_team<<<grid, Op::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op, teams);
  check_launch(name);
}
#else
template <class Op>
void launch(const char* name, const Op& op, const Index3& shape, void*) {
  check_plane(name, shape.h * shape.w);
  for (int64_t row = 0; row < shape.d * shape.h; ++row) {
    const Index3 at = row_start(row, shape);
    for (int64_t w = 0; w < shape.w; ++w) op(at.d, at.h, w);
  }
}

template <class Op>
void launch_teams(const char*, const Op& op, int64_t teams, void*) {
  for (int64_t team = 0; team < teams; ++team) {
    typename Op::Shared shared;
    for (int phase = 0; phase < Op::kPhases; ++phase) {
      for (int thread = 0; thread < Op::kThreads; ++thread) op.phase(phase, team, thread, shared);
    }
  }
}
#endif

}  // namespace cuda
}  // namespace rmr
