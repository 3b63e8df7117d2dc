// `husk build`: an image from a program of this host.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "cli/failure.h"
#include "cli/image_building.h"
#include "cli/program.h"
#include "image/open.h"

namespace husk::cli {

namespace {

// The image takes the place of what has its name.
void check_output(const std::string& output, const std::string& program) {
  struct stat there {
  }, source{};
  if (lstat(output.c_str(), &there) != 0) return;
  if (S_ISDIR(there.st_mode)) throw Failure("build: " + output + ": is a directory; name a file in it");
  if (!S_ISREG(there.st_mode)) throw Failure("build: " + output + ": exists and is not a regular file; choose another name");
  if (stat(program.c_str(), &source) == 0 && there.st_dev == source.st_dev && there.st_ino == source.st_ino) {
    throw Failure("build: " + output + ": is the program itself; choose another name");
  }
}

}  // namespace

int build_command(const BuildOptions& options) {
  Target target = find_target(options.program);
  if (target.is_image) throw Failure("build: " + options.program + ": is an image already; run it with: husk run " + options.program);
  BuildOptions resolved = options;
  resolved.program = target.path;
  check_output(options.output, target.path);
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
