// What: runs of equal labels, the pieces that connected components are made of.
// Layout: a run is a stretch [begin, end) of one (d, h) row; rows in C order, runs in order within a row.
// Source: run-based labelling, He et al., Pattern Recognition 70 (2017); union by smaller index makes it deterministic.
#pragma once

#include "../platform.h"

namespace rmr {

struct Run {
  int64_t row;
  int64_t begin, end;
};

// Whether two runs of neighbouring rows share a face, an edge or a corner.
RMR_HD inline bool touch(const Run& a, const Run& b) { return a.begin <= b.end && b.begin <= a.end; }

// The sum of the w indices of a run's voxels.
RMR_HD inline int64_t index_sum(const Run& run) { return (run.begin + run.end - 1) * (run.end - run.begin) / 2; }

}  // namespace rmr
