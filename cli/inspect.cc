// `husk inspect`: what an image is made of.
#include <stdio.h>

#include "cli/failure.h"
#include "cli/options.h"
#include "image/inspect.h"

namespace husk::cli {

int inspect_command(const std::string& path, bool json) {
  image::Image image = image::Image::open(path, image::Verify::whole);
  std::string text = json ? image::inspect_json(image).dump(2) + "\n" : image::inspect_text(image, image::Detail::sites);
  fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace husk::cli
