// What: devices, memory and streams as far as the bindings ask for them; no device without a driver.
// Layout: -
// Source: own.
#include "kernels.h"

namespace rmr::cuda {
namespace {

void check(const char* what, cudaError_t status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // reported here, not at a later launch
  throw Error(std::string(what) + ": " + cudaGetErrorString(status), status);
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver, or one too old: the error must not stick to a later launch
  return 0;
}

Location locate(const void* address) {
  cudaPointerAttributes found{};
  int current = 0;
  check("asking for the device", cudaGetDevice(&current));
  check("asking for memory", cudaPointerGetAttributes(&found, address));
  if (found.type == cudaMemoryTypeDevice) return {Location::kDevice, found.device, current};
  const bool shared = found.type == cudaMemoryTypeManaged || found.type == cudaMemoryTypeHost;
  return {shared ? Location::kShared : Location::kUnknown, found.device, current};
}

void follow(void* stream, void* other) {
  cudaEvent_t reached = nullptr;
  check("making an event", cudaEventCreateWithFlags(&reached, cudaEventDisableTiming));
  cudaError_t status = cudaEventRecord(reached, static_cast<cudaStream_t>(other));
  if (status == cudaSuccess) status = cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), reached, 0);
  cudaEventDestroy(reached);  // once the device has passed it
  check("following a stream", status);
}

}  // namespace rmr::cuda
