// What: the network of a bundle, made ready on the CPU by OpenVINO, and a caller's queue of tiles on it.
// Layout: tiles are C-contiguous float32: inputs (D, H, W) per contrast, outputs (channels, D, H, W).
// Twin: rmr_sdk/engines/openvino.py and openvino_session.py.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"

namespace rmr::capi {

using Clock = std::chrono::steady_clock;

struct EngineRequest {
  std::string precision;  // empty: the most exact that the bundle has
  int threads = 0;        // 0: all cores
  std::string cache_dir;  // empty: nothing is kept
};

struct EngineInfo {
  std::string version, device_name, precision;
  int threads = 0, slots = 0;  // tiles to keep in flight for full speed
};

struct Predictions {
  const float *fused = nullptr, *probability = nullptr;  // probability is null without classes
};

// Belongs to one thread. Destroying it gives up the tiles in flight.
class Session {
 public:
  virtual ~Session() = default;

  // Starts computing a tile; the inputs are read where they are until it has been collected.
  virtual void submit(const std::vector<float*>& inputs) = 0;

  // Waits for the oldest tile, and not beyond the deadline: false then. The predictions stay until the next call.
  virtual bool collect(Clock::time_point deadline, Predictions& predictions) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  virtual const std::string& warning() const = 0;  // about how it was opened, or empty
  virtual std::unique_ptr<Session> session() const = 0;
};

// Compiles the bundle's graph and tests it on the golden tile, or takes what an earlier opening left in the cache.
std::unique_ptr<Engine> open_engine(const Bundle& bundle, const EngineRequest& request);

std::string engine_version();

}  // namespace rmr::capi
