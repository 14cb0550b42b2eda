// What: the device launchers compiled for the host, a module for the tests: what a GPU would index, any CPU can check.
// Layout: the functions of rmr_sdk._C.cuda, on host memory; `stream` is ignored.
// Source: own.
#include "../../csrc/bindings/device.h"
#include "../../csrc/blend_cuda.cu"
#include "../../csrc/extract_cuda.cu"
#include "../../csrc/foreground_cuda.cu"
#include "../../csrc/resample_cuda.cu"

PYBIND11_MODULE(_emulated, module) { rmr::bindings::bind_ops<rmr::bindings::Device>(module); }
