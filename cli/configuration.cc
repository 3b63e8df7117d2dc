// See cli/configuration.h.
#include "cli/configuration.h"

#include <stdlib.h>
#include <unistd.h>

#include "abi/boot_config.h"

namespace husk::cli {

using abi::ConfigTag;

namespace {

void set_default(std::vector<std::string>& environment, const std::string& name, const std::string& value) {
  for (const std::string& entry : environment) {
    if (entry.compare(0, name.size() + 1, name + "=") == 0) return;
  }
  environment.push_back(name + "=" + value);
}

}  // namespace

std::vector<u8> make_configuration(std::span<const u8> from_image, const RunOptions& options, TargetKind kind) {
  std::vector<u8> out;
  std::vector<std::string> arguments, environment;
  std::string directory, host_name;
  abi::ConfigReader reader(from_image);
  while (auto record = reader.next()) {
    switch (record->tag) {
      case ConfigTag::argument: arguments.emplace_back(record->text()); break;
      case ConfigTag::environment: add_environment(environment, std::string(record->text())); break;
      case ConfigTag::directory: directory = record->text(); break;
      case ConfigTag::host_name: host_name = record->text(); break;
      case ConfigTag::memory_size: break;
      default: abi::append_config(out, record->tag, record->text());
    }
  }
  if (arguments.empty()) arguments.push_back(options.target);
  // As the shell would: argv[0] is the word typed, except for a script, whose interpreter stands before it.
  if (kind == TargetKind::program && arguments.size() == 1) arguments[0] = options.target;
  if (kind == TargetKind::image && !options.arguments.empty()) arguments.resize(1);
  arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
  for (const std::string& entry : options.environment) add_environment(environment, entry);
  if (!options.directory.empty()) directory = options.directory;
  if (!options.name.empty()) host_name = options.name;
  if (!options.host_name.empty()) host_name = options.host_name;
  if (host_name.empty()) host_name = "husk";
  set_default(environment, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  set_default(environment, "HOME", "/root");
  set_default(environment, "HOSTNAME", host_name);
  const char* terminal = getenv("TERM");
  if (isatty(STDIN_FILENO) == 1 || isatty(STDOUT_FILENO) == 1) set_default(environment, "TERM", terminal == nullptr ? "xterm" : terminal);
  for (const std::string& text : arguments) abi::append_config(out, ConfigTag::argument, text);
  for (const std::string& text : environment) abi::append_config(out, ConfigTag::environment, text);
  abi::append_config(out, ConfigTag::directory, directory.empty() ? "/" : directory);
  abi::append_config(out, ConfigTag::host_name, host_name);
  if (options.trace) abi::append_config(out, ConfigTag::trace, "");
  if (options.jit) abi::append_config(out, ConfigTag::jit, "");
  if (options.no_randomisation) abi::append_config(out, ConfigTag::address_randomisation, std::string_view("\0", 1));
  if (options.log_level) {
    char level = static_cast<char>(*options.log_level);
    abi::append_config(out, ConfigTag::log_level, std::string_view(&level, 1));
  }
  return out;
}

}  // namespace husk::cli
