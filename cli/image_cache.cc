// The cache of images behind `husk run PROGRAM`: ${XDG_CACHE_HOME:-~/.cache}/husk/DIGEST.husk and KEY.sources.
//
// Two steps. KEY names the question (program, --with, this husk); KEY.sources says which image answered it and in what state (size, time,
// inode) every file was that went into it: if all are as they were, a hit costs one stat(2) each and no hashing. Else the
// image's digest is computed from the sources (image::input_digest), and only if DIGEST.husk is not there, it is built.
// Files appear by rename(2); what a killed run left is removed by the next build; the images used longest ago go when the
// directory grows beyond its bound.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "cli/failure.h"
#include "cli/image_building.h"
#include "cli/program.h"
#include "image/elf/view.h"
#include "image/file.h"

namespace husk::cli {
namespace {

constexpr u64 kCacheSizeMax = 4 * kGiB;

std::string state_of(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return "missing";
  std::ostringstream out;
  out << status.st_size << ' ' << status.st_mtim.tv_sec << '.' << status.st_mtim.tv_nsec << ' ' << status.st_ino << ' ' << status.st_dev;
  return out.str();
}

// FNV-1a, twice with different starts: names a file only; the question itself is compared in full.
std::string key_of(const std::string& question) {
  char text[40];
  u64 a = 0xcbf29ce484222325, b = 0x84222325cbf29ce4;
  for (char c : question) {
    a = (a ^ static_cast<u8>(c)) * 0x100000001b3;
    b = (b ^ static_cast<u8>(c)) * 0x100000001b3 + 1;
  }
  snprintf(text, sizeof(text), "%016lx%016lx", a, b);
  return text;
}

std::string cache_directory() {
  const char* xdg = getenv("XDG_CACHE_HOME");
  const char* home = getenv("HOME");
  std::string base = xdg != nullptr && xdg[0] == '/' ? xdg : home != nullptr && home[0] == '/' ? std::string(home) + "/.cache" : "";
  if (base.empty()) throw Failure("cache: neither XDG_CACHE_HOME nor HOME says where; set one, or build an image: husk build PROGRAM -o FILE");
  mkdir(base.c_str(), 0777);
  std::string directory = base + "/husk";
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    throw Failure("cache: " + directory + ": " + strerror(errno) + "; set XDG_CACHE_HOME to a directory that can be written");
  }
  struct stat status;
  if (stat(directory.c_str(), &status) == 0 && status.st_uid != geteuid()) {
    throw Failure("cache: " + directory + ": belongs to another user, who could change what runs; set XDG_CACHE_HOME to a directory of your own");
  }
  return directory;
}

// What of the program's environment decides which files its image needs.
std::vector<std::string> deciding_environment(const RunOptions& options) {
  std::vector<std::string> out;
  for (const std::string& entry : options.environment) {
    if (entry.starts_with("TZ=") || entry.starts_with("LD_LIBRARY_PATH=")) out.push_back(entry);
  }
  return out;
}

std::string question_of(const std::string& program, const RunOptions& options) {
  std::string out = "husk " + state_of("/proc/self/exe") + "\nprogram " + program + "\n";
  for (const std::string& with : options.with) out += "with " + with + "\n";
  for (const std::string& entry : deciding_environment(options)) out += "environment " + entry + "\n";
  if (options.jit) out += "jit\n";
  if (!options.with.empty()) {
    char* here = getcwd(nullptr, 0);
    out += std::string("in ") + (here == nullptr ? "" : here) + "\n";
    free(here);
  }
  return out;
}

// The .sources file: the question, an empty line, the image's digest, then "PATH\tSTATE" of each source. "" if any has changed.
std::string fresh_digest(const std::string& sources_path, const std::string& question) {
  std::ifstream file(sources_path, std::ios::binary);
  std::string asked, digest;
  std::string line;
  while (std::getline(file, line) && !line.empty()) asked += line + "\n";
  if (!file || asked != question || !std::getline(file, digest)) return "";
  while (std::getline(file, line)) {
    size_t tab = line.rfind('\t');
    if (tab == std::string::npos || state_of(line.substr(0, tab)) != line.substr(tab + 1)) return "";
  }
  return digest;
}

// Files, and the directories that they came from: a new file there may belong to the image. Not the program's own directory, where
// people work; a change there that matters is seen when a file's state changes.
std::vector<std::string> sources_of(const image::BuildRequest& request) {
  std::set<std::string> out{"/etc/ld.so.cache"};
  image::Plan plan = image::make_plan(request);
  std::string own = image::parent_of(request.program);
  for (const auto& [path, node] : plan.tree.nodes()) {
    if (node.source.empty()) continue;
    out.insert(node.source);
    if (std::string parent = image::parent_of(node.source); parent != own) out.insert(parent);
  }
  for (const image::WithPath& with : request.with) out.insert(image::absolute_path(with.host));
  return {out.begin(), out.end()};
}

void write_sources(const std::string& path, const std::string& question, const std::string& digest, const image::BuildRequest& request) {
  std::string temporary = path + ".tmp." + std::to_string(getpid());
  std::ofstream file(temporary, std::ios::binary);
  file << question << "\n" << digest << "\n";
  for (const std::string& source : sources_of(request)) file << source << "\t" << state_of(source) << "\n";
  file.close();
  if (!file || rename(temporary.c_str(), path.c_str()) != 0) {
    unlink(temporary.c_str());
    throw Failure("cache: " + path + ": cannot be written; is the disk full?");
  }
}

struct Entry {
  std::string name;
  u64 size;
  timespec used;
};

// Removes what dead builds left, then the images used longest ago until the rest fits.
void tidy(const std::string& directory, const std::string& keep) {
  std::vector<Entry> entries;
  u64 total = 0;
  DIR* listing = opendir(directory.c_str());
  while (dirent* item = listing == nullptr ? nullptr : readdir(listing)) {
    std::string name = item->d_name, path = directory + "/" + name;
    size_t mark = name.find(".tmp.");
    if (mark != std::string::npos) {
      int pid = atoi(name.c_str() + mark + 5);
      if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) unlink(path.c_str());
      continue;
    }
    struct stat status;
    if (!name.ends_with(".husk") || stat(path.c_str(), &status) != 0) continue;
    entries.push_back({name, static_cast<u64>(status.st_blocks) * 512, status.st_atim});
    total += entries.back().size;
  }
  if (listing != nullptr) closedir(listing);
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec); });
  for (const Entry& entry : entries) {
    if (total <= kCacheSizeMax) break;
    if (entry.name == keep + ".husk") continue;
    unlink((directory + "/" + entry.name).c_str());
    total -= entry.size;
  }
}

// Something is wrong with what the image was to be made of. If it is the program itself, it is one that cannot be run.
void refuse_broken_program(const std::string& program) {
  auto file = image::MappedFile::open(program);
  if (!file.bytes().empty() && file.bytes()[0] == '#') return;
  try {
    (void)image::ElfView::parse(file.bytes(), program);
  } catch (const image::Error& error) {
    throw Failure(error.what(), kStatusCannotRun);
  }
}

}  // namespace

std::string cached_image(const std::string& program, const RunOptions& options) {
  std::string directory = cache_directory();
  std::string question = question_of(program, options);
  std::string sources = directory + "/" + key_of(question) + ".sources";
  auto image_of = [&](const std::string& digest) { return directory + "/" + digest + ".husk"; };
  std::string digest = fresh_digest(sources, question);
  if (!digest.empty()) {
    timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};  // when it was last used; fails if it is gone
    if (utimensat(AT_FDCWD, image_of(digest).c_str(), times, 0) == 0) return image_of(digest);
  }
  BuildOptions build;
  build.program = program;
  build.with = options.with;
  build.environment = deciding_environment(options);
  build.jit = options.jit;
  image::BuildRequest request = build_request(build);
  try {
    digest = image::input_digest(request);
    if (access(image_of(digest).c_str(), R_OK) != 0) {
      tidy(directory, digest);
      Progress progress("preparing " + options.target);
      build_image(request, image_of(digest), progress);
    }
  } catch (const image::MissingError& error) {
    throw Failure(error.what(), kStatusNotFound);
  } catch (const image::Error&) {
    refuse_broken_program(program);
    throw;
  }
  write_sources(sources, question, digest, request);
  return image_of(digest);
}

}  // namespace husk::cli
