// The command's own logic: words into options, options into a configuration, crash records into text.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <fstream>

#include "abi/boot_config.h"
#include "abi/control_records.h"
#include "cli/configuration.h"
#include "cli/crash_report.h"
#include "cli/failure.h"
#include "cli/program.h"

extern "C" const char __executable_start;  // the linker's: where this program was loaded

namespace husk::cli {
namespace {

TEST(Options, sizes) {
  EXPECT_EQ(parse_size("4M", "-m"), 4 * kMiB);
  EXPECT_EQ(parse_size("1g", "-m"), kGiB);
  EXPECT_EQ(parse_size("512KiB", "-m"), 512 * kKiB);
  EXPECT_EQ(parse_size("4096", "-m"), 4096u);
  for (const char* bad : {"", "M", "1.5G", "-1M", "4X", "4MM", "99999999999999G", "4 M"}) EXPECT_THROW(parse_size(bad, "-m"), Failure) << bad;
}

TEST(Options, durations) {
  EXPECT_EQ(parse_duration_ns("10", "-t"), 10'000'000'000u);
  EXPECT_EQ(parse_duration_ns("500ms", "-t"), 500'000'000u);
  for (const char* bad : {"", "x", "-1", "1h", "nan"}) EXPECT_THROW(parse_duration_ns(bad, "-t"), Failure) << bad;
}

TEST(Options, environment_as_docker_reads_it) {
  setenv("HUSK_TEST_HOST", "from host", 1);
  std::vector<std::string> out;
  for (const char* entry : {"A=1", "HUSK_TEST_HOST", "HUSK_TEST_MISSING", "A=2", "EMPTY="}) add_environment(out, entry);
  EXPECT_EQ(out, (std::vector<std::string>{"HUSK_TEST_HOST=from host", "A=2", "EMPTY="}));
  EXPECT_THROW(add_environment(out, "=x"), Failure);
}

std::vector<std::string> texts(const std::vector<u8>& config, abi::ConfigTag tag) {
  std::vector<std::string> out;
  abi::ConfigReader reader(config);
  while (auto record = reader.next()) {
    if (record->tag == tag) out.emplace_back(record->text());
  }
  return out;
}

TEST(Configuration, options_overlay_the_image) {
  std::vector<u8> image;
  abi::append_config(image, abi::ConfigTag::program, "/bin/x");
  abi::append_config(image, abi::ConfigTag::argument, "x");
  abi::append_config(image, abi::ConfigTag::argument, "default");
  abi::append_config(image, abi::ConfigTag::environment, "A=image");
  RunOptions options;
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::image), abi::ConfigTag::argument), (std::vector<std::string>{"x", "default"}));
  options.arguments = {"one", ""};
  options.environment = {"A=user"};
  auto config = make_configuration(image, options, TargetKind::image);
  image.clear();
  EXPECT_EQ(texts(config, abi::ConfigTag::program), (std::vector<std::string>{"/bin/x"}));
  EXPECT_EQ(texts(config, abi::ConfigTag::argument), (std::vector<std::string>{"x", "one", ""}));
  EXPECT_EQ(texts(config, abi::ConfigTag::environment)[0], "A=user");
  abi::append_config(image, abi::ConfigTag::argument, "/usr/bin/x");
  options.target = "./x";
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::program), abi::ConfigTag::argument), (std::vector<std::string>{"./x", "one", ""}));
  abi::append_config(image, abi::ConfigTag::argument, "/srv/script");
  EXPECT_EQ(texts(make_configuration(image, options, TargetKind::program), abi::ConfigTag::argument),
            (std::vector<std::string>{"/usr/bin/x", "/srv/script", "one", ""}));
}

int status_of(const std::string& word) {
  try {
    find_target(word);
    return 0;
  } catch (const Failure& failure) {
    return failure.status();
  }
}

TEST(Program, exit_statuses_of_what_cannot_be_run) {
  EXPECT_EQ(status_of("husk-no-such-program"), 127);
  EXPECT_EQ(status_of("/no/such/file"), 127);
  EXPECT_EQ(status_of("/"), 126);
  EXPECT_EQ(status_of("/etc/passwd"), 126);
  EXPECT_EQ(status_of(""), 127);
  EXPECT_EQ(status_of("ls"), 0);
}

int sample_function() { return 42; }

TEST(CrashReport, names_functions_from_the_file_and_survives_any_record) {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  std::vector<u8> elf((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  u64 offset = reinterpret_cast<u64>(&sample_function) - reinterpret_cast<u64>(&__executable_start);
  EXPECT_NE(symbol_at(elf, offset + 1).find("sample_function"), std::string::npos);

  struct {
    abi::CrashRecord crash;
    abi::CrashFrame frame;
    char text[12];
  } record{};
  record.crash.signal = SIGSEGV;
  record.crash.fault_address = 0x1234;
  record.crash.frame_count = 1;
  record.frame = {0xffff0000, offset + 1, 0, 8};
  memcpy(record.text, "[kernel]", 8);
  const u8* bytes = reinterpret_cast<const u8*>(&record);
  size_t size = offsetof(decltype(record), text) + 8;
  std::string text = describe_crash({bytes, size}, ImageFiles({}), elf);
  EXPECT_NE(text.find("SIGSEGV"), std::string::npos);
  EXPECT_NE(text.find("0x1234"), std::string::npos);
  EXPECT_NE(text.find("sample_function"), std::string::npos);
  for (size_t cut = 0; cut < size; ++cut) describe_crash({bytes, cut}, ImageFiles({}), {});
  record.crash.frame_count = ~0u;
  record.crash.message_size = ~0u;
  describe_crash({bytes, size}, ImageFiles({}), {});
}

}  // namespace
}  // namespace husk::cli
