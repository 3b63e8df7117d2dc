// `husk build`: an image from a program of this host.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "cli/failure.h"
#include "cli/image_building.h"
#include "cli/program.h"
#include "image/open.h"

namespace husk::cli {

int build_command(const BuildOptions& options) {
  Target target = find_target(options.program);
  if (target.is_image) throw Failure("build: " + options.program + ": is an image already; run it with: husk run " + options.program);
  BuildOptions resolved = options;
  resolved.program = target.path;
  Progress progress("building " + options.output);
  image::Manifest manifest = build_image(build_request(resolved), options.output, progress);
  progress.finish();
  for (const std::string& warning : manifest.warnings) fprintf(stderr, "husk: build: note: %s\n", warning.c_str());
  struct stat status {};
  stat(options.output.c_str(), &status);
  if (options.json) {
    nlohmann::json out = image::to_json(manifest);
    out["image"] = options.output;
    out["size"] = status.st_size;
    puts(out.dump(2).c_str());
  }
  return 0;
}

}  // namespace husk::cli
