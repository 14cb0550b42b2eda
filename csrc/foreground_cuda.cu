// What: foreground search on a device.
// Layout: 64 threads per block of voxels, one line each.
// Source: own; arithmetic in ops/foreground.h.
#include "kernels.h"

namespace rmr::cuda {

template <class T>
void occupancy(const Occupancy<T>& op, void* stream) {
  const OccupancyTeam<T> team(op);
  launch_teams("occupancy", team, team.teams(), stream);
}

#define RMR_INSTANTIATE(T) template void occupancy(const Occupancy<T>&, void*);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cuda
