// What: the grid that tiles are cut from: the reference's own, or its field of view in voxels that suit the network.
// Layout: in the manifest's orientation.
// Twin: rmr_sdk/common_grid.py.
#pragma once

#include <optional>

#include "geometry.h"

namespace rmr::capi {

// The common grid; none where it is the reference's grid itself.
std::optional<Grid> choose_grid(const Grid& native, const Manifest& manifest);

}  // namespace rmr::capi
