// See cli/image_building.h.
#include "cli/image_building.h"

#include <stdio.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/embedded.h"
#include "cli/failure.h"
#include "cli/timeline.h"

namespace husk::cli {
namespace {

constexpr u64 kPatienceNs = u64{300} * 1000 * 1000;

// "FILE|DIR[:PATH]"; a host path with a colon can be given with one more behind it.
image::WithPath parse_with(const std::string& word) {
  size_t colon = word.rfind(':');
  image::WithPath with{word.substr(0, colon), colon == std::string::npos ? "" : word.substr(colon + 1)};
  if (with.host.empty()) throw Failure("--with " + word + ": names no file; write FILE or DIR, or FILE:PATH-IN-THE-IMAGE");
  if (!with.image.empty() && with.image[0] != '/') throw Failure("--with " + word + ": the path in the image must begin with /");
  if (access(with.host.c_str(), R_OK) != 0) throw Failure("--with " + word + ": " + strerror(errno) + "; check the path");
  with.host = image::absolute_path(with.host);
  return with;
}

}  // namespace

Progress::Progress(std::string title) : title_(std::move(title)), start_ns_(monotonic_ns()) {}

void Progress::step(std::string_view what) {
  if (isatty(STDERR_FILENO) != 1 || monotonic_ns() - start_ns_ < kPatienceNs) return;
  fprintf(stderr, "\r\033[Khusk: %s: %.*s", title_.c_str(), static_cast<int>(what.size()), what.data());
  shown_ = true;
}

void Progress::finish() {
  if (shown_) fputs("\r\033[K", stderr);
  shown_ = false;
}

image::BuildRequest build_request(const BuildOptions& options) {
  image::BuildRequest request;
  request.program = options.program;
  request.arguments = options.arguments;
  request.environment = options.environment;
  for (const std::string& word : options.with) request.with.push_back(parse_with(word));
  if (!options.directory.empty()) request.directory = options.directory;
  request.memory = options.memory;
  request.jit = options.jit;
  request.nub = {"nub.elf", embedded_nub()};
  request.kernel = {"kernel.elf", embedded_kernel()};
  if (request.kernel.bytes.empty() || request.nub.bytes.empty()) {
    throw Failure("build: this husk was built without its kernel; build all of it with: make");
  }
  return request;
}

image::Manifest build_image(const image::BuildRequest& request, const std::string& output, Progress& progress) {
  return image::build_image(request, output, [&](const image::Progress& now) {
    std::string text = now.step;
    if (now.total > 1) text += " " + std::to_string(now.done) + "/" + std::to_string(now.total);
    if (!now.detail.empty()) text += " " + now.detail;
    progress.step(text.substr(0, 70));
  });
}

}  // namespace husk::cli
