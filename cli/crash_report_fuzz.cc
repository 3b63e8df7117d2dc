// Any bytes as a crash record, and any bytes as the ELF files that it names: a text must come of it, soon. The first word of the input says
// how much of it is the file.
#include "cli/crash_report.h"

using namespace husk;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::span<const u8> input(data, size);
  u64 file_size = image::read_at<u32>(input, 0).value_or(0);
  if (size < 4 || file_size > size - 4) return 0;
  std::span<const u8> file = input.subspan(4, file_size);
  auto read_file = [&](const std::string&) { return std::vector<u8>(file.begin(), file.end()); };
  std::string text = cli::describe_crash(input.subspan(4 + file_size), read_file, file);
  if (text.empty()) __builtin_trap();
  return 0;
}
