// What: the device launchers compiled for the host, a module for the tests: what a GPU would index, any CPU can check.
// Layout: the functions of rmr_sdk._C.cuda, on host memory. Tests say which memory is on which device, and read which
//         streams followed which. All memory is on device 0 as long as none has been named.
// Source: own.
#include <map>

#include "../../csrc/bindings/device.h"
#include "../../csrc/blend_cuda.cu"
#include "../../csrc/extract_cuda.cu"
#include "../../csrc/foreground_cuda.cu"
#include "../../csrc/resample_cuda.cu"

namespace {

struct Block {
  uintptr_t end;
  int device;
};
std::map<uintptr_t, Block> blocks;  // by their first address
std::vector<std::pair<uintptr_t, uintptr_t>> followed;

}  // namespace

namespace rmr::cuda {

Location locate(const void* address) {
  if (blocks.empty()) return {Location::kDevice, 0, 0};
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto next = blocks.upper_bound(at);
  if (next == blocks.begin() || at >= std::prev(next)->second.end) return {Location::kUnknown, 0, 0};
  return {Location::kDevice, std::prev(next)->second.device, 0};
}

void follow(void* stream, void* other) {
  followed.emplace_back(reinterpret_cast<uintptr_t>(stream), reinterpret_cast<uintptr_t>(other));
}

}  // namespace rmr::cuda

PYBIND11_MODULE(_emulated, module) {
  rmr::bindings::raise_device_errors();
  rmr::bindings::bind_ops<rmr::bindings::Device>(module);
  module.def("own",
             [](uintptr_t address, uintptr_t bytes, int device) { blocks[address] = {address + bytes, device}; });
  module.def("disown", [](uintptr_t address) { blocks.erase(address); });
  module.def("forget", [] {
    blocks.clear();
    followed.clear();
  });
  module.def("followed", [] { return followed; });
  module.def("fail", [](int status) { throw rmr::cuda::Error("extract: as the test wants it", status); });
}
