// The `husk` command: options as docker users expect them; each subcommand is one function of options.h.
#include <ctype.h>
#include <stdio.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/failure.h"
#include "cli/network_options.h"
#include "cli/options.h"
#include "cli/timeline.h"

#ifndef HUSK_VERSION
#define HUSK_VERSION "0.1.0"
#endif

namespace husk::cli {

int version_command(bool json) {
  if (json) puts(nlohmann::json({{"version", HUSK_VERSION}}).dump().c_str());
  else puts("husk " HUSK_VERSION);
  return 0;
}

namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  husk run sqlite3 -version                  a program of this host as a machine of its own\n"
    "  echo 'print(6*7)' | husk run -m 128M python3 -\n"
    "  husk build redis-server -o redis.husk --with redis.conf:/etc/redis.conf -- /etc/redis.conf\n"
    "  husk run --timeline redis.husk\n"
    "  husk run -p 6379:6379 redis-server --protected-mode no --save ''\n"
    "  husk inspect redis.husk\n"
    "  husk doctor                                can this host do it?";
constexpr const char* kInspectFooter =
    "Examples:\n"
    "  husk inspect redis.husk                    sizes of its parts, rewritten and remaining system calls of each file\n"
    "  husk inspect --json redis.husk | jq .sizes";
constexpr const char* kDoctorFooter = "Example:\n  husk doctor --json | jq -r '.checks[]'";
constexpr const char* kCompletionFooter =
    "Examples:\n"
    "  source <(husk completion bash)             for this shell; put the line into ~/.bashrc for every one\n"
    "  husk completion zsh > ~/.zsh/_husk         with ~/.zsh in fpath\n"
    "  husk completion fish > ~/.config/fish/completions/husk.fish";
constexpr const char* kRunFooter =
    "Options stand before PROGRAM; what stands behind it is the program's.\n"
    "Exit status: the program's; 128+N if signal N ended it; 125 husk failed, 126 cannot be run, 127 not found.\n"
    "Examples:\n"
    "  husk run -e LANG=C -w /tmp sort < words    environment, working directory, stdin and stdout\n"
    "  husk run --with ./site:/srv -m 64M ./server --root /srv\n"
    "  husk run -p 6379:6379 redis-server --protected-mode no --save ''\n"
    "  husk run -p 8080:80 --with ./site:/var/www/html nginx -g 'daemon off; master_process off;'\n"
    "  husk run -p 127.0.0.1:5353:53/udp ./resolver     on this host's loopback only\n"
    "  husk run --net tap --pcap out.pcap ./server      an interface of its own (needs CAP_NET_ADMIN)\n"
    "  husk run --hypervisor qemu --machine q35 hello.husk";

// Raw words, checked in callbacks after parsing so that all errors look alike.
struct RunWords {
  std::vector<std::string> environment, environment_files;
  std::string memory, stop_timeout, cpus = "1", log_level;
  bool interactive = false, tty = false;
  NetworkWords network;
};

void add_environment_options(CLI::App* app, RunWords& words) {
  app->add_option("-e,--env", words.environment, "NAME=VALUE, or NAME for the host's value")->type_name("NAME[=VALUE]")->allow_extra_args(false);
  app->add_option("--env-file", words.environment_files, "read variables from a file")->type_name("FILE")->allow_extra_args(false);
}

std::vector<std::string> environment_of(const RunWords& words) {
  std::vector<std::string> out;
  for (const std::string& file : words.environment_files) add_environment_file(out, file);
  for (const std::string& entry : words.environment) add_environment(out, entry);
  return out;
}

u8 parse_log_level(const std::string& word) {
  constexpr const char* levels[] = {"error", "warning", "info", "debug"};
  for (u8 i = 0; i < 4; ++i) {
    if (word == levels[i]) return i;
  }
  throw Failure("--log-level " + word + ": choose error, warning, info or debug");
}

// What users of containers try first, and what serves here.
std::string hint(const std::string& option) {
  auto is = [&](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return option == name || option.starts_with(std::string(name) + "="); });
  };
  if (is({"-v", "--volume", "--mount"})) return "; files come with --with (directories shared with the host are not there yet)";
  if (is({"-d", "--detach"})) return "; a machine is a process: put it into the background with & or a service manager";
  if (is({"-u", "--user"})) return "; a machine has no users, its program is its own root";
  if (is({"--entrypoint"})) return "; PROGRAM is the entry point";
  return "";
}

// The first word that is not an option may follow "--", which the parser does not know.
void drop_separator(std::vector<std::string>& words, CLI::App* run) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
    if (word.size() < 2 || word[0] != '-') return;
    const CLI::Option* option = run->get_option_no_throw(word);  // null: its value is attached, or it is unknown
    if (option != nullptr && option->get_items_expected_max() > 0) ++i;
  }
}

// PROGRAM and everything behind it arrive as one list, because options behind PROGRAM are not ours.
void take_target(CLI::App* run, RunOptions& options) {
  std::vector<std::string> rest = run->remaining();
  if (!rest.empty() && rest[0] == "--") rest.erase(rest.begin());
  if (rest.empty()) throw Failure("run: no program or image given; see: husk run --help");
  if (rest[0].size() > 1 && rest[0][0] == '-') throw Failure("run: unknown option " + rest[0] + hint(rest[0]) + "; see: husk run --help");
  options.target = rest[0];
  options.arguments.assign(rest.begin() + 1, rest.end());
}

// 0: not said.
u64 memory_of(const RunWords& words) {
  if (words.memory.empty()) return 0;
  u64 memory = parse_size(words.memory, "--memory");
  if (memory < kMiB) throw Failure("--memory " + words.memory + ": too little; a machine needs at least 1M, most programs 4M or more");
  return memory;
}

// Names of machines become host names; the program's uname(2) has 64 characters.
void check_name(const std::string& option, const std::string& name) {
  if (name.empty()) return;
  if (!is_host_name(name) || name.size() > 64 || isalnum(static_cast<unsigned char>(name[0])) == 0) {
    throw Failure(option + " " + name + ": not a name; at most 64 letters, digits, '-', '.' and '_', the first a letter or digit");
  }
}

void finish_run_options(RunOptions& options, const RunWords& words) {
  options.environment = environment_of(words);
  options.memory = memory_of(words);
  if (!words.stop_timeout.empty()) options.stop_timeout_ns = parse_duration_ns(words.stop_timeout, "--stop-timeout");
  options.network = parse_network(words.network);
  char* end = nullptr;
  double cpus = strtod(words.cpus.c_str(), &end);
  if (end == words.cpus.c_str() || *end != 0 || !(cpus > 0)) throw Failure("--cpus " + words.cpus + ": not a number of CPUs");
  if (cpus != 1) throw Failure("--cpus " + words.cpus + ": only 1 works yet; leave the option out");
  if (options.json && !options.timeline) throw Failure("--json: is about the time line; add --timeline");
  check_name("--name", options.name);
  check_name("--hostname", options.host_name);
  if (!words.log_level.empty()) options.log_level = parse_log_level(words.log_level);
  if (!options.directory.empty() && options.directory[0] != '/')
    throw Failure("--workdir " + options.directory + ": not absolute; it is a path in the machine");
}

void add_network_options(CLI::App* run, NetworkWords& words) {
  auto list = [run](const char* name, std::vector<std::string>& to, const char* help, const char* type) {
    run->add_option(name, to, help)->type_name(type)->allow_extra_args(false);
  };
  list("-p,--publish", words.publish, "a port of this host leads to a port of the machine (HOSTPORT left out: any free one)",
       "[[IP:]HOSTPORT:]PORT[/udp]");
  run->add_option("--net,--network", words.net, "user (default), none, tap[=INTERFACE]; user,host-loopback=on lets the machine reach 127.0.0.1 here")
      ->type_name("NETWORK");
  list("--ip", words.ip, "with tap: the machine's address; default chosen, or dhcp", "ADDRESS[/PREFIX][,gateway=ADDRESS]");
  run->add_option("--mac-address", words.mac, "of the machine's interface (default random)")->type_name("MAC");
  run->add_option("--mtu", words.mtu, "of the machine's interface")->type_name("BYTES");
  list("--dns", words.dns, "a name server (default this host's)", "ADDRESS");
  list("--dns-search", words.dns_search, "a domain in which short names are searched", "DOMAIN");
  list("--add-host", words.add_host, "a line of the machine's /etc/hosts; host-gateway is this host", "NAME:ADDRESS");
  run->add_option("--pcap", words.pcap, "write what the machine sends and receives, for tcpdump or Wireshark")->type_name("FILE");
}

void add_run(CLI::App& app, RunOptions& options, RunWords& words) {
  CLI::App* run = app.add_subcommand("run", "Run a program or an image as a machine of its own:\nhusk run [OPTIONS] PROGRAM|IMAGE [ARGUMENTS...]");
  run->footer(kRunFooter);
  run->prefix_command();
  add_environment_options(run, words);
  run->add_option("-m,--memory", words.memory, "the machine's memory, taken from the host only when used (default the image's, or 256M)")
      ->type_name("SIZE");
  run->add_option("--cpus", words.cpus, "virtual CPUs: only 1 works yet")->type_name("N");
  run->add_option("-w,--workdir", options.directory, "working directory in the machine (default /), made if it is not there")->type_name("DIR");
  run->add_option("--name", options.name, "name of the machine")->type_name("NAME");
  run->add_option("--hostname", options.host_name, "host name that the program sees (default: the machine's name)")->type_name("NAME");
  run->add_option("--with", options.with, "add a file or directory to a program's image")->type_name("FILE|DIR[:PATH]")->allow_extra_args(false);
  add_network_options(run, words.network);
  run->add_flag("--trace", options.trace, "print each system call");
  run->add_flag("--timeline", options.timeline, "say when what happened, and what was used");
  run->add_flag("--json", options.json, "the time line as JSON");
  run->add_flag("--jit", options.jit, "the program makes code at run time");
  run->add_flag("--no-aslr", options.no_randomisation, "addresses are the same at each start (for debugging)");
  run->add_option("--log-level", words.log_level, "what the machine's kernel says: error, warning, info, debug")->type_name("LEVEL");
  run->add_option("--hypervisor", options.hypervisor, "auto, kvm or qemu (without KVM)")
      ->check(CLI::IsMember({"auto", "kvm", "qemu"}))
      ->type_name("WHICH");
  run->add_option("--machine", options.machine, "QEMU's machine: microvm or q35")->check(CLI::IsMember({"microvm", "q35"}))->type_name("WHICH");
  run->add_option("--stop-timeout", words.stop_timeout, "from the first stop signal to power off (default 10s)")->type_name("TIME");
  // As docker: the last one counts.
  for (const char* name : {"--memory", "--cpus", "--workdir", "--name", "--hostname", "--log-level", "--hypervisor", "--machine", "--stop-timeout"})
    run->get_option(name)->take_last();
  run->add_flag("--rm", words.interactive, "accepted: nothing of a machine is ever kept");
  run->add_flag("-i,--interactive", words.interactive, "accepted: stdin is always the program's");
  run->add_flag("-t,--tty", words.tty, "accepted: a terminal always stays a terminal");
}

void add_build(CLI::App& app, BuildOptions& options, RunWords& words) {
  CLI::App* build = app.add_subcommand("build", "Make an image of a program:\nhusk build PROGRAM -o IMAGE [OPTIONS] [-- ARGUMENTS...]");
  build->footer("Example:\n  husk build python3 -o app.husk --with ./app:/app -e PYTHONDONTWRITEBYTECODE=1 -- /app/main.py");
  build->add_option("PROGRAM", options.program, "a program of this host, by name or path")->required();
  build->add_option("ARGUMENTS", options.arguments, "the program's default arguments, behind --");
  build->add_option("-o,--output", options.output, "the image file")->required()->type_name("IMAGE");
  build->add_option("--with", options.with, "add a file or directory")->type_name("FILE|DIR[:PATH]")->allow_extra_args(false);
  add_environment_options(build, words);
  build->add_option("-w,--workdir", options.directory, "working directory")->type_name("DIR");
  build->add_option("-m,--memory", words.memory, "memory that the image asks for")->type_name("SIZE");
  build->add_flag("--jit", options.jit, "the program makes code at run time");
  build->add_flag("--json", options.json, "say what was built as JSON");
}

void check_first_word(const CLI::App& app, const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw Failure("no command given; see: husk --help");
  const std::string& word = arguments[0];
  if (word == "-h" || word == "--help" || word == "--version") return;
  if (word.starts_with("-"))
    throw Failure("unknown option " + word + "; options stand behind the command, as in: husk run -m 64M PROGRAM; see: husk --help");
  if (app.get_subcommands([&](const CLI::App* command) { return command->get_name() == word; }).empty()) {
    throw Failure(word + ": no such command; to run a program: husk run " + word + "; see: husk --help");
  }
}

int parse_and_run(int argc, char** argv, u64 start_ns) {
  CLI::App app("husk: programs as machines of their own", "husk");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", "husk " HUSK_VERSION);
  RunOptions run;
  BuildOptions build;
  RunWords words;
  std::string image, shell;
  bool json = false;
  add_run(app, run, words);
  add_build(app, build, words);
  CLI::App* inspect = app.add_subcommand("inspect", "Say what is in an image");
  inspect->add_option("IMAGE", image, "an image file")->required();
  inspect->add_flag("--json", json, "as JSON");
  inspect->footer(kInspectFooter);
  CLI::App* doctor = app.add_subcommand("doctor", "Check what this host can do, and how to mend what it cannot");
  doctor->add_flag("--json", json, "as JSON");
  doctor->footer(kDoctorFooter);
  CLI::App* completion = app.add_subcommand("completion", "Print a completion script: bash, zsh or fish");
  completion->add_option("SHELL", shell, "bash, zsh or fish")->required();
  completion->footer(kCompletionFooter);
  CLI::App* version = app.add_subcommand("version", "Print the version");
  version->add_flag("--json", json, "as JSON");
  version->footer("Example:\n  husk version --json");
  std::vector<std::string> arguments(argv + 1, argv + argc);
  check_first_word(app, arguments);
  if (arguments[0] == "run") {
    std::vector<std::string> rest(arguments.begin() + 1, arguments.end());
    drop_separator(rest, app.get_subcommand("run"));
    arguments.resize(1);
    arguments.insert(arguments.end(), rest.begin(), rest.end());
  }
  try {
    std::reverse(arguments.begin(), arguments.end());  // as the parser wants them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::string who = app.get_subcommands().empty() ? "" : " " + app.get_subcommands()[0]->get_name();
    throw Failure((who.empty() ? "" : who.substr(1) + ": ") + error.what() + "; see: husk" + who + " --help");
  }
  if (app.got_subcommand("run")) {
    take_target(app.get_subcommand("run"), run);
    finish_run_options(run, words);
    return run_command(run, start_ns);
  }
  if (app.got_subcommand("build")) {
    build.environment = environment_of(words);
    build.memory = memory_of(words);
    return build_command(build);
  }
  if (*inspect) return inspect_command(image, json);
  if (*doctor) return doctor_command(json);
  if (*completion) return completion_command(shell);
  return version_command(json);
}

}  // namespace
}  // namespace husk::cli

int main(int argc, char** argv) {
  husk::u64 start_ns = husk::cli::monotonic_ns();
  try {
    return husk::cli::parse_and_run(argc, argv, start_ns);
  } catch (const husk::cli::Failure& failure) {
    fprintf(stderr, "husk: %s\n", failure.what());
    return failure.status();
  } catch (const std::exception& failure) {
    fprintf(stderr, "husk: %s\n", failure.what());
    return husk::cli::kStatusHusk;
  }
}
