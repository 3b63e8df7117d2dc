// See stack_image.h.
#include "kernel/linux/stack_image.h"

#include <elf.h>
#include <string.h>

namespace husk::linux {
namespace {

constexpr std::string_view kPlatform = "x86_64";

u64 text_size(std::span<const String> texts) {
  u64 size = 0;
  for (const String& text : texts) size += text.size() + 1;
  return size;
}

// Writes at addresses into the image's bytes, upwards.
class Writer {
 public:
  Writer(StackImage& image, u64 at) : image_(image), at_(at) {}
  u64 at() const { return at_; }
  void bytes(const void* from, size_t size) {
    memcpy(&image_.bytes[at_ - image_.stack_pointer], from, size);
    at_ += size;
  }
  void word(u64 value) { bytes(&value, sizeof(value)); }
  void text(std::string_view value) {
    if (!value.empty()) bytes(value.data(), value.size());
    at_ += 1;  // the NUL is there: bytes start as zero
  }
  void texts(std::span<const String> values) {
    for (const String& value : values) text(value);
  }
  void pointers(u64 first, std::span<const String> values) {
    for (const String& value : values) {
      word(first);
      first += value.size() + 1;
    }
    word(0);
  }

 private:
  StackImage& image_;
  u64 at_;
};

}  // namespace

Result<StackImage> build_stack(const StackRequest& request) {
  StackImage image;
  const u64 executable = request.top - 8 - (request.executable.size() + 1);
  image.environment_end = executable;
  image.environment_start = image.environment_end - text_size(request.environment);
  image.arguments_end = image.environment_start;
  image.arguments_start = image.arguments_end - text_size(request.arguments);
  const u64 platform = align_down(image.arguments_start - request.gap, 16) - 16;
  const u64 random = platform - sizeof(request.random);
  const u64 words = 1 + request.arguments.size() + 1 + request.environment.size() + 1 + 2 * (request.auxiliary.size() + 4);
  image.stack_pointer = align_down(random - words * sizeof(u64), 16);
  TRY(image.bytes.resize(request.top - image.stack_pointer));

  Writer vectors(image, image.stack_pointer);
  vectors.word(request.arguments.size());
  vectors.pointers(image.arguments_start, request.arguments);
  vectors.pointers(image.environment_start, request.environment);
  const u64 auxiliary_start = vectors.at();
  for (const AuxiliaryEntry& entry : request.auxiliary) {
    vectors.word(entry.type);
    vectors.word(entry.value);
  }
  const AuxiliaryEntry own[] = {{AT_RANDOM, random}, {AT_EXECFN, executable}, {AT_PLATFORM, platform}, {AT_NULL, 0}};
  vectors.bytes(own, sizeof(own));
  TRY(image.auxiliary_vector.resize(vectors.at() - auxiliary_start));
  memcpy(image.auxiliary_vector.data(), &image.bytes[auxiliary_start - image.stack_pointer], image.auxiliary_vector.size());

  Writer(image, random).bytes(request.random, sizeof(request.random));
  Writer(image, platform).text(kPlatform);
  Writer(image, image.arguments_start).texts(request.arguments);
  Writer(image, image.environment_start).texts(request.environment);
  Writer(image, executable).text(request.executable);
  return image;
}

}  // namespace husk::linux
