// What: reading /proc and /sys, as cores.h asks.
// Layout: -
// Source: sched_getaffinity(2), cgroups(7).
#include "cores.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

namespace rmr::capi {
namespace {

int online() { return std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))); }

int physical_cores() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return online();
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) return CPU_COUNT(&cpus);
    cores.insert(siblings);
  }
  return static_cast<int>(cores.size());
}

int quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  long long most = 0, period = 0;
  if (!(file >> most >> period) || period <= 0) return online();  // no cgroup v2, or "max": no quota
  return static_cast<int>((most + period - 1) / period);
}

}  // namespace

int usable_cores() { return std::max(1, std::min(physical_cores(), quota())); }

std::string cpu_identity() {
  utsname names{};
  std::string identity = uname(&names) == 0 ? names.machine : "";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) == 0 || line.rfind("Features", 0) == 0) return identity + " " + line;
  }
  return identity;
}

}  // namespace rmr::capi
