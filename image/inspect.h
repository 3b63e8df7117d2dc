// What an image is made of, for `husk inspect`: as text for people, as JSON for scripts.
#pragma once

#include <string>

#include "image/open.h"

namespace husk::image {

nlohmann::json inspect_json(const Image& image);
// `sites`: name every system call that was left, with the reason.
enum class Detail { summary, sites };
std::string inspect_text(const Image& image, Detail detail);

}  // namespace husk::image
