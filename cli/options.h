// What the user said on the command line, after checking.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "cli/network_options.h"

namespace husk::cli {

constexpr u64 kDefaultMemory = 256 * kMiB;

struct RunOptions {
  std::string target;  // PROGRAM or IMAGE
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // NAME=VALUE, complete
  std::vector<std::string> with;         // FILE|DIR[:PATH]
  std::string directory, name, host_name;
  u64 memory = 0;  // 0: what the image asks for, else kDefaultMemory
  u64 stop_timeout_ns = u64{10} * 1000 * 1000 * 1000;
  std::string hypervisor = "auto";  // auto, kvm, qemu
  std::string machine = "microvm";  // for qemu
  bool trace = false, timeline = false, json = false, jit = false, no_randomisation = false;
  std::optional<u8> log_level;
  NetworkOptions network;
};

struct BuildOptions {
  std::string program, output;
  std::vector<std::string> arguments, environment, with;
  std::string directory;
  u64 memory = 0;
  bool jit = false, json = false;
};

// "4M", "1g", "65536", "512k", "1.5G" is refused. Throws Failure that names `option`.
u64 parse_size(const std::string& text, const std::string& option);
// "10", "1.5", "500ms", "2s", "1m". Throws Failure.
u64 parse_duration_ns(const std::string& text, const std::string& option);
// -e and --env-file as docker reads them: NAME alone takes the host's value, or nothing if it has none.
void add_environment(std::vector<std::string>& out, const std::string& entry);
void add_environment_file(std::vector<std::string>& out, const std::string& path);

int run_command(const RunOptions& options, u64 command_start_ns);
int build_command(const BuildOptions& options);
int inspect_command(const std::string& image, bool json);
int doctor_command(bool json);
int completion_command(const std::string& shell);
int version_command(bool json);

}  // namespace husk::cli
