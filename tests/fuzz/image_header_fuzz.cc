// Any bytes as an image file: opening and inspecting must end in a result or an image::Error.
// The digests are not verified: the fuzzer could not get past them.
#include "image/inspect.h"

using namespace husk;
using namespace husk::image;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    Image image = Image::from_bytes({data, size}, "input", Verify::layout);
    image.config();
    inspect_text(image, Detail::sites);
    inspect_json(image).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  } catch (const Error&) {}
  return 0;
}
