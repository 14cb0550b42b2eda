// What: voxels of one grid, seen on another: the call of the native resampling and the choice of interpolation.
// Layout: the result is C-contiguous; float32, or with kNearest the type of the voxels.
// Twin: rmr_sdk/resample.py.
#pragma once

#include "voxels.h"

namespace rmr::capi {

enum class Interpolation { kNearest, kLinear, kArea };

void regrid(const Voxels& voxels, const Grid& source, const Grid& target, Interpolation mode, int threads, void* out);

// The interpolation of intensities: the average over the target voxel where linear would skip voxels.
Interpolation image_mode(const Grid& source, const Grid& target);

}  // namespace rmr::capi
