// What: how many devices there are, none without a driver.
// Layout: -
// Source: own.
#include "kernels.h"

namespace rmr::cuda {

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver, or one too old: the error must not stick to a later launch
  return 0;
}

}  // namespace rmr::cuda
