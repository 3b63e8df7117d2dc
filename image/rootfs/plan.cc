// The steps of planning, in order: skeleton, program (or script and interpreter), --with, recipes, libraries.
#include "image/rootfs/plan.h"

#include <fnmatch.h>
#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "image/rootfs/libraries.h"
#include "image/rootfs/recipes.h"

namespace husk::image {
namespace {

constexpr int kScriptDepthMax = 4;  // as Linux

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

class Planner {
 public:
  explicit Planner(const PlanRequest& request) : request_(request), libraries_(plan_.tree, request.environment) {}

  Plan run() {
    add_skeleton();
    add_program();
    for (const auto& with : request_.with) add_with(with);
    libraries_.add_needs_of(plan_.program, missing_);
    add_recipes();
    report_missing();
    for (const std::string& path : plan_.tree.left_out()) plan_.warnings.push_back("left out, neither a file nor a directory: " + path);
    return std::move(plan_);
  }

 private:
  // What programs take for granted on every Linux system.
  void add_skeleton() {
    Tree& tree = plan_.tree;
    for (const char* name : {"/bin", "/sbin", "/lib", "/lib64"}) {
      tree.add_directory(std::string("/usr") + name);
      struct stat status;
      bool merged = lstat(name, &status) == 0 && S_ISLNK(status.st_mode);
      if (merged) {
        tree.add_link(name, std::string("usr") + name);
      } else {
        tree.add_directory(name);
      }
    }
    for (const char* name : {"/dev", "/proc", "/sys", "/etc", "/run", "/root", "/home", "/var/log", "/var/cache"}) {
      tree.add_directory(name);
    }
    tree.add_link("/var/run", "/run");
    tree.add_directory("/tmp", 01777);
    tree.add_directory("/var/tmp", 01777);
    tree.add_directory("/dev/shm", 01777);
    tree.add_text("/etc/passwd",
                  "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/"
                  "usr/sbin/nologin\n");
    tree.add_text("/etc/group", "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n");
    tree.add_text("/etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n");
    tree.add_text("/etc/hostname", "husk\n");
    tree.add_text("/etc/nsswitch.conf",
                  "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
                  "networks: files\nprotocols: files\nservices: files\n");
    tree.add_text("/etc/resolv.conf", "# Filled in by the network configuration.\n");
    add_time_zone();
  }

  void add_time_zone() {
    if (access("/etc/localtime", R_OK) == 0) plan_.tree.add_host("/etc/localtime");
    for (const auto& variable : request_.environment) {
      if (!variable.starts_with("TZ=")) continue;
      std::string zone = variable.substr(variable.size() > 3 && variable[3] == ':' ? 4 : 3);
      std::string path = zone.starts_with("/") ? zone : "/usr/share/zoneinfo/" + zone;
      if (!zone.empty() && zone.find("..") == std::string::npos && access(path.c_str(), R_OK) == 0) {
        plan_.tree.add_host(path);
      }
    }
  }

  void add_program() {
    std::string path = find_program(request_.program);
    plan_.arguments = {request_.program};
    for (int depth = 0;; ++depth) {
      std::string real = plan_.tree.add_host(path);
      MappedFile file = MappedFile::open(real);
      if (!as_text(file.bytes()).starts_with("#!")) {
        ElfView::parse(file.bytes(), path);
        break;
      }
      if (depth == kScriptDepthMax) throw Error(path + ": too many interpreters of interpreters");
      path = follow_script(path, file.bytes());
    }
    plan_.program = path;
    plan_.arguments.insert(plan_.arguments.end(), request_.arguments.begin(), request_.arguments.end());
  }

  // Replaces argv[0] by the interpreter's words and the script; returns the interpreter.
  std::string follow_script(const std::string& script, Bytes bytes) {
    std::string_view line = as_text(bytes.subspan(2));
    std::string text(line.substr(0, std::min(line.find('\n'), size_t{4096})));
    auto words = words_of(text);
    if (words.empty()) throw Error(script + ": its first line names no interpreter");
    bool environment = base_name(words[0]) == "env";
    if (environment) {
      // env(1) only searches PATH: do it now, so that the image needs no env.
      words.erase(words.begin());
      if (!words.empty() && words[0] == "-S") words.erase(words.begin());
      if (words.empty() || words[0].starts_with("-") || words[0].find('=') != std::string::npos) {
        throw Error(script + ": husk cannot follow \"" + text + "\"; name the interpreter in the command instead");
      }
    } else if (words.size() > 2) {
      // Linux hands over everything behind the interpreter as one argument.
      size_t at = text.find(words[1], text.find(words[0]) + words[0].size());
      std::string rest = text.substr(at);
      rest.erase(rest.find_last_not_of(" \t\r") + 1);
      words = {words[0], rest};
    }
    std::string interpreter;
    try {
      interpreter = find_program(words[0]);
    } catch (const Error& error) {
      throw MissingError(script + ": its interpreter is missing: " + error.what());
    }
    plan_.arguments[0] = script;
    plan_.arguments.insert(plan_.arguments.begin(), words.begin(), words.end());
    return interpreter;
  }

  void add_with(const WithPath& with) {
    std::string host = absolute_path(with.host);
    std::string to = with.image.empty() ? host : with.image;
    if (!to.starts_with("/")) throw Error("--with " + with.host + ":" + to + ": the path in the image must be absolute");
    struct stat status;
    if (stat(host.c_str(), &status) != 0) fail_errno("--with " + with.host);
    if (S_ISDIR(status.st_mode)) {
      add_files([&] { plan_.tree.add_host_directory(host, to, [](const std::string&) { return true; }); });
      return;
    }
    if (to == host) {
      plan_.tree.add_host(host);
      libraries_.add_needs_of(host, missing_);
    } else {
      if (to.ends_with("/")) to += base_name(host);
      plan_.tree.add_file_as(host, to, Times::keep);
      needs_of_copy(host, missing_);
    }
  }

  void add_recipes() {
    std::string real = plan_.tree.resolve(plan_.program);
    // Recipes bring files, these need libraries, and libraries may call for recipes: until nothing is new.
    std::vector<bool> done(recipes().size());
    for (bool again = true; again;) {
      again = false;
      for (size_t i = 0; i < recipes().size(); ++i) {
        const Recipe& recipe = recipes()[i];
        if (done[i] || !applies(recipe, base_name(real))) continue;
        done[i] = again = true;
        plan_.jit = plan_.jit || recipe.jit;
        for (const char* path : recipe.paths) add_recipe_path(recipe, path, real);
        for (auto [path, target] : recipe.links) plan_.tree.add_link(path, target);
      }
    }
    // Threads that are cancelled or that make backtraces open it by name.
    static constexpr char kUnwinder[] = "/lib/x86_64-linux-gnu/libgcc_s.so.1";
    if (libraries_.names().contains("libc.so.6") && access(kUnwinder, R_OK) == 0) {
      libraries_.add_needs_of(kUnwinder, optional_missing_);
    }
  }

  bool applies(const Recipe& recipe, const std::string& name) const {
    if (recipe.program && fnmatch(recipe.program, name.c_str(), 0) == 0) return true;
    return recipe.library && std::any_of(libraries_.names().begin(), libraries_.names().end(),
                                         [&](const auto& library) { return fnmatch(recipe.library, library.c_str(), 0) == 0; });
  }

  void add_recipe_path(const Recipe& recipe, std::string pattern, const std::string& program) {
    for (const auto& [token, value] : {std::pair("{name}", base_name(program)), std::pair("{directory}", parent_of(program))}) {
      size_t at = pattern.find(token);
      if (at != std::string::npos) pattern.replace(at, strlen(token), value);
    }
    glob_t found = {};
    if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
      for (size_t i = 0; i < found.gl_pathc; ++i) add_found(recipe, absolute_path(found.gl_pathv[i]));
    }
    globfree(&found);
  }

  void add_found(const Recipe& recipe, const std::string& path) {
    if (path_matches(path, recipe.without)) return;
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return;
    if (!S_ISDIR(status.st_mode)) {
      plan_.tree.add_host(path, Times::keep);
      return;
    }
    std::string real = plan_.tree.add_host(path);
    add_files([&] { plan_.tree.add_host_directory(real, real, [&](const std::string& below) { return !path_matches(below, recipe.without); }); });
  }

  // Runs what adds many files, then finds the libraries of the programs and modules among the new ones.
  template <typename Add>
  void add_files(Add add) {
    std::vector<std::string> before, added;
    for (const auto& [path, node] : plan_.tree.nodes()) before.push_back(path);
    add();
    for (const auto& [path, node] : plan_.tree.nodes()) {
      bool may_be_elf = node.kind == TreeNode::Kind::file && ((node.mode & 0111) || path.find(".so") != std::string::npos);
      if (may_be_elf && !std::binary_search(before.begin(), before.end(), path)) added.push_back(path);
    }
    for (const auto& path : added) needs_of_copy(plan_.tree.nodes().at(path).source, optional_missing_);
  }

  // Libraries of a file that lies somewhere else in the image, or that may be no ELF file for this machine at all.
  void needs_of_copy(const std::string& host, std::vector<MissingLibrary>& missing) {
    MappedFile file = MappedFile::open(host);
    if (!ElfView::looks_like_elf(file.bytes())) return;
    try {
      libraries_.add_needs_of_copy(host, missing);
    } catch (const Error& error) {
      plan_.warnings.push_back(error.what());
    }
  }

  static std::string describe(const std::vector<MissingLibrary>& missing) {
    std::string text;
    for (const auto& library : missing) text += (text.empty() ? "" : ", ") + library.name + " (for " + library.needed_by + ")";
    return text;
  }

  void report_missing() {
    if (!optional_missing_.empty()) plan_.warnings.push_back("left out, not installed: " + describe(optional_missing_));
    if (missing_.empty()) return;
    throw MissingError(request_.program + ": " + std::to_string(missing_.size()) +
                       (missing_.size() == 1 ? " library is missing: " : " libraries are missing: ") + describe(missing_) +
                       "; install the packages that hold them, or name their directory with -e LD_LIBRARY_PATH=DIR");
  }

  const PlanRequest& request_;
  Plan plan_;
  Libraries libraries_;
  std::vector<MissingLibrary> missing_, optional_missing_;
};

}  // namespace

Plan make_plan(const PlanRequest& request) { return Planner(request).run(); }

std::string find_program(const std::string& name) {
  if (name.empty()) throw Error("no program was named");
  std::vector<std::string> candidates;
  if (name.find('/') != std::string::npos) {
    candidates.push_back(absolute_path(name));
  } else {
    const char* path = getenv("PATH");
    std::istringstream directories(path ? path : "/usr/local/bin:/usr/bin:/bin");
    for (std::string directory; std::getline(directories, directory, ':');) {
      candidates.push_back(absolute_path(directory + "/" + name));
    }
  }
  for (const auto& candidate : candidates) {
    struct stat status;
    if (stat(candidate.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (access(candidate.c_str(), R_OK) != 0) throw Error(candidate + ": cannot be read; husk needs to read a program to run it");
    if (status.st_mode & 0111) return candidate;
    throw Error(candidate + ": is not executable; chmod +x it");
  }
  if (name.find('/') == std::string::npos) throw Error(name + ": no such program in PATH");
  struct stat status;
  bool exists = stat(candidates[0].c_str(), &status) == 0;
  throw Error(name + (exists ? ": is not a regular file" : ": no such file"));
}

Digest identity(const Plan& plan) {
  Sha256 hash;
  for (const auto& [path, node] : plan.tree.nodes()) {
    hash.add_text(path);
    hash.add_number(static_cast<u64>(node.kind) << 32 | node.mode);
    hash.add_text(node.content);
    struct stat status = {};
    if (!node.source.empty() && stat(node.source.c_str(), &status) != 0) fail_errno(node.source);
    u64 fields[] = {static_cast<u64>(status.st_size),
                    status.st_ino,
                    status.st_dev,
                    static_cast<u64>(status.st_mtim.tv_sec),
                    static_cast<u64>(status.st_mtim.tv_nsec),
                    static_cast<u64>(status.st_ctim.tv_sec),
                    static_cast<u64>(status.st_ctim.tv_nsec)};
    hash.add({reinterpret_cast<const u8*>(fields), sizeof(fields)});
  }
  hash.add_text(plan.program);
  for (const auto& argument : plan.arguments) hash.add_text(argument);
  return hash.finish();
}

}  // namespace husk::image
