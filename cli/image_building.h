// Between the command and the image library: one build with its progress, for `husk build` and for the cache.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/options.h"
#include "image/builder.h"

namespace husk::cli {

// A line on stderr that is rewritten: only on a terminal, and only once the work has taken 300 ms.
class Progress {
 public:
  explicit Progress(std::string title);
  ~Progress() { finish(); }
  void step(std::string_view what);
  void finish();

 private:
  std::string title_;
  u64 start_ns_;
  bool shown_ = false;
};

// With this command's own kernel and nub.
image::BuildRequest build_request(const BuildOptions& options);
image::Manifest build_image(const image::BuildRequest& request, const std::string& output, Progress& progress);

}  // namespace husk::cli
