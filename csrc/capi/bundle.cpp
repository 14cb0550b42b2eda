// What: reading a bundle's files from a folder or from a zip file.
// Layout: -
// Source: own; the limits are those of rmr_sdk/bundle.py.
#include "bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "failure.h"
#include "sha256.h"
#include "text.h"
#include "zip.h"

namespace rmr::capi {
namespace {

constexpr uint64_t kMostManifest = 1 << 20, kMostRatio = 200;
constexpr const char* kManifest = "manifest.json";

[[noreturn]] void missing(const std::string& path, const std::string& reason) {
  if (path == kManifest) {
    fail(kBundleError, "Not a bundle: manifest.json is not at its top (" + reason + ").",
         "Pass the folder or the zip file that holds it directly.");
  }
  fail(kBundleError, "The bundle lacks its file \"" + path + "\" (" + reason + ").",
       "Fetch or export the bundle again.");
}

[[noreturn]] void changed(const std::string& path, const std::string& problem) {
  fail(kChecksumError, "\"" + path + "\" " + problem + ": it is not the file that the manifest describes.",
       "Fetch or export the bundle again.");
}

void check_size(const std::string& path, uint64_t found, uint64_t size) {
  const bool manifest = path == kManifest;
  if (manifest ? found > size : found != size) {
    changed(path,
            "has " + std::to_string(found) + " bytes, not " + (manifest ? "at most " : "") + std::to_string(size));
  }
}

class File {
 public:
  // A named pipe in the place of a file must not make the reader wait for a writer.
  explicit File(const std::string& path) : handle_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
    struct stat facts{};
    if (handle_ < 0 || fstat(handle_, &facts) != 0) {
      problem_ = std::strerror(errno);
    } else if (!S_ISREG(facts.st_mode)) {
      problem_ = "not a regular file";
    }
    size_ = problem_.empty() ? static_cast<uint64_t>(facts.st_size) : 0;
  }
  ~File() {
    if (handle_ >= 0) close(handle_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& problem() const { return problem_; }
  uint64_t size() const { return size_; }

  bool read_at(uint64_t offset, void* into, size_t size) const {
    auto* bytes = static_cast<char*>(into);
    while (size > 0) {
      const ssize_t got = pread(handle_, bytes, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      bytes += got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return true;
  }

 private:
  int handle_;
  uint64_t size_ = 0;
  std::string problem_;
};

std::string read_from_folder(const std::string& root, const std::string& path, uint64_t size) {
  const File file(root + "/" + path);
  if (!file.problem().empty()) missing(path, file.problem());
  check_size(path, file.size(), size);
  std::string bytes(file.size(), '\0');
  if (!file.read_at(0, bytes.data(), bytes.size())) missing(path, "it cannot be read to its end");
  return bytes;
}

std::string read_from_zip(const std::string& archive, const std::string& path, uint64_t size) {
  const File file(archive);
  if (!file.problem().empty()) missing(path, file.problem());
  try {
    const Zip zip(
        [&](uint64_t offset, void* into, size_t count) {
          if (!file.read_at(offset, into, count)) throw ZipError("it is cut short");
        },
        file.size());
    const ZipEntry* entry = zip.find(path);
    if (!entry) missing(path, "not in the zip file");
    if (entry->size > std::max<uint64_t>(kMostRatio * entry->packed_size, 1 << 16)) {
      changed(path, "would unpack to more than " + std::to_string(kMostRatio) + " times its packed size");
    }
    check_size(path, entry->size, size);
    return zip.read(*entry);
  } catch (const ZipError& error) {
    fail(kBundleError, "Cannot unpack \"" + path + "\": " + error.what() + ".", "Fetch or export the bundle again.");
  }
}

}  // namespace

Bundle::Bundle(Read read) : read_(std::move(read)) {
  const std::string bytes = read_(kManifest, kMostManifest);
  manifest_ = decode_manifest(bytes);
  hash_ = capi::sha256(bytes);
}

Bundle Bundle::open(const std::string& path) {
  struct stat facts{};
  if (stat(path.c_str(), &facts) == 0) {
    using namespace std::placeholders;
    if (S_ISDIR(facts.st_mode)) return Bundle(std::bind(read_from_folder, path, _1, _2));
    if (S_ISREG(facts.st_mode)) return Bundle(std::bind(read_from_zip, path, _1, _2));
  }
  fail(kBundleError, "There is no bundle \"" + path + "\".", "Pass the path of a bundle folder or .zip file.");
}

std::string Bundle::read(const BundleFile& file) const {
  std::string bytes = read_(file.path, static_cast<uint64_t>(file.size));
  const std::string found = capi::sha256(bytes);
  if (found != file.sha256) {
    changed(file.path, "has sha256 " + found.substr(0, 12) + "..., not " + file.sha256.substr(0, 12) + "...");
  }
  return bytes;
}

const BundleFile& Bundle::graph(const std::string& precision) const {
  for (const BundleFile& file : manifest_.artifacts) {
    if (file.onnx && file.precision == precision) return file;
  }
  fail(kEngineMismatchError, "Bundle \"" + manifest_.name + "\" has no " + precision + " graph.",
       "Choose another precision, or export the bundle with that one.");
}

}  // namespace rmr::capi
