// What: how many cores this process may compute on, and which kind of CPU they are.
// Layout: -
// Twin: rmr_sdk/engines/cores.py.
#pragma once

#include <string>

namespace rmr::capi {

// Two hyper-threads of one core count once, and a container's quota counts; at least 1.
int usable_cores();

// What the CPU can execute, for cache keys.
std::string cpu_identity();

}  // namespace rmr::capi
