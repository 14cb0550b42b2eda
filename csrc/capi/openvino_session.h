// What: a ring of OpenVINO's inference requests, the queue of one caller.
// Layout: as in engine.h.
// Twin: rmr_sdk/engines/openvino_session.py.
#pragma once

#include <memory>
#include <openvino/runtime/compiled_model.hpp>
#include <string>

#include "engine.h"

namespace rmr::capi {

inline constexpr const char* kReport = "Report it with the versions that rmr_describe gives.";

// The manifest must outlive the session.
std::unique_ptr<Session> open_session(ov::CompiledModel compiled, const Manifest& manifest, int slots);

// How many convolutions and matrix products compute in int8; layers whose quantisation OpenVINO cannot match run in
// floating point, in silence. As rmr_sdk/engines/openvino_layers.py counts them.
int count_int8_layers(const ov::CompiledModel& compiled);

// The last line of an OpenVINO message: the ones before it name its source files.
std::string last_line(const std::exception& error);

}  // namespace rmr::capi
