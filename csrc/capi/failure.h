// What: what goes wrong on the way to the border: a family, the name of its class, a problem and what to do about it.
// Layout: families are those of rmr.h, which are the exit codes of the command line.
// Twin: rmr_sdk/errors.py.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace rmr::capi {

struct Kind {
  int family;
  const char* name;
};

inline constexpr Kind kInternalError{1, "RmrError"};
inline constexpr Kind kUsageError{2, "UsageError"};
inline constexpr Kind kStudyError{3, "StudyError"};
inline constexpr Kind kGeometryError{3, "GeometryError"};
inline constexpr Kind kConfigError{3, "ConfigError"};
inline constexpr Kind kBundleError{4, "BundleError"};
inline constexpr Kind kManifestError{4, "ManifestError"};
inline constexpr Kind kChecksumError{4, "ChecksumError"};
inline constexpr Kind kEngineMismatchError{4, "EngineMismatchError"};
inline constexpr Kind kEngineError{5, "EngineError"};
inline constexpr Kind kDeviceUnavailableError{5, "DeviceUnavailableError"};
inline constexpr Kind kDeviceMemoryError{5, "DeviceMemoryError"};
inline constexpr Kind kCancelled{130, "Cancelled"};
inline constexpr Kind kDeadlineExceeded{130, "DeadlineExceeded"};

class Failure : public std::exception {
 public:
  Failure(const Kind& kind, const std::string& problem, const std::string& fix)
      : kind_(kind), problem_(problem), fix_(fix), message_(problem + (fix.empty() ? "" : " " + fix)) {}

  const Kind& kind() const { return kind_; }
  const std::string& message() const { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

  // The same, with what it is about before it.
  Failure about(const std::string& subject) const { return {kind_, subject + ": " + problem_, fix_}; }

 private:
  Kind kind_;
  std::string problem_, fix_, message_;
};

[[noreturn]] inline void fail(const Kind& kind, const std::string& problem, const std::string& fix = "") {
  throw Failure(kind, problem, fix);
}

// Runs `body`; errors about the input name the contrast.
template <class Body>
auto naming(const std::string& contrast, const Body& body) {
  try {
    return body();
  } catch (const Failure& failure) {
    if (failure.kind().family != kStudyError.family) throw;
    throw failure.about("contrast \"" + contrast + "\"");
  }
}

}  // namespace rmr::capi
