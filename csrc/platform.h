// What: what differs between g++ and nvcc, and how an op is run over voxels on a device.
// Layout: the only file that looks at __CUDACC__; everything else reads the same under both compilers.
// Source: own; without nvcc `launch` is a loop, so that tests run the device launchers on any machine.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef __CUDACC__
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

namespace rmr {

struct Index3 {
  int64_t d, h, w;
};

// The rows of a C-contiguous (d, h, w) block in order: where row `row` lies.
RMR_HD inline Index3 row_start(int64_t row, const Index3& shape) { return {row / shape.h, row % shape.h, 0}; }

namespace cuda {

#ifdef __CUDACC__
constexpr int kThreads = 128;

// One block per row and stretch of `kThreads` voxels; rows beyond the grid limit are reached in strides.
template <class Op>
__global__ void for_each_voxel(Op op, Index3 shape) {
  const int64_t w = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  if (w >= shape.w) return;
  for (int64_t row = blockIdx.x; row < shape.d * shape.h; row += gridDim.x) {
    const Index3 at = row_start(row, shape);
    op(at.d, at.h, w);
  }
}

// Runs op(d, h, w) for every voxel of `shape` on a stream; returns before the device is done.
template <class Op>
void launch(const char* name, const Op& op, const Index3& shape, void* stream) {
  const int64_t rows = shape.d * shape.h;
  if (rows <= 0 || shape.w <= 0) return;
  const dim3 grid(static_cast<unsigned>(rows < INT32_MAX ? rows : INT32_MAX),
                  static_cast<unsigned>((shape.w + kThreads - 1) / kThreads));
  for_each_voxel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op, shape);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
  }
}
#else
template <class Op>
void launch(const char*, const Op& op, const Index3& shape, void*) {
  for (int64_t row = 0; row < shape.d * shape.h; ++row) {
    const Index3 at = row_start(row, shape);
    for (int64_t w = 0; w < shape.w; ++w) op(at.d, at.h, w);
  }
}
#endif

}  // namespace cuda
}  // namespace rmr
