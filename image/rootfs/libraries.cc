// Library search; see libraries.h. The cache's layout: glibc's sysdeps/generic/dl-cache.h, "new" format.
#include "image/rootfs/libraries.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace husk::image {
namespace {

constexpr char kCachePath[] = "/etc/ld.so.cache";
constexpr std::string_view kCacheMagic = "glibc-ld.so.cache1.1";
constexpr u32 kCacheX8664 = 0x0303;  // FLAG_X8664_LIB64 | FLAG_ELF_LIBC6

struct CacheHeader {
  char magic[20];
  u32 count, string_size;
  u8 flags, padding[3];
  u32 extension_offset, unused[3];
};
static_assert(sizeof(CacheHeader) == 48);
struct CacheEntry {
  u32 flags, name, path, os_version;
  u64 hardware;
};
static_assert(sizeof(CacheEntry) == 24);

std::string replace_all(std::string text, std::string_view from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  return text;
}

std::vector<std::string> split_path(std::string_view list, const std::string& origin) {
  std::vector<std::string> directories;
  while (!list.empty()) {
    size_t end = std::min(list.find_first_of(":;"), list.size());
    std::string directory(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
    for (const char* token : {"$ORIGIN", "${ORIGIN}"}) directory = replace_all(directory, token, origin);
    for (const char* token : {"$LIB", "${LIB}"}) directory = replace_all(directory, token, "lib/x86_64-linux-gnu");
    if (!directory.empty()) directories.push_back(directory);
  }
  return directories;
}

// A library for another architecture is passed over, as ld.so does.
bool is_usable(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char head[20] = {};
  if (!file.read(head, sizeof(head))) return false;
  return memcmp(head, ELFMAG, 4) == 0 && head[EI_CLASS] == ELFCLASS64 && static_cast<u8>(head[18]) == EM_X86_64;
}

std::string find_in(const std::vector<std::string>& directories, std::string_view name) {
  for (const auto& directory : directories) {
    std::string path = directory + "/" + std::string(name);
    if (access(path.c_str(), R_OK) == 0 && is_usable(path)) return path;
  }
  return {};
}

}  // namespace

Libraries::Libraries(Tree& tree, const std::vector<std::string>& environment) : tree_(tree) {
  system_directories_ = {"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"};
  for (const auto& variable : environment) {
    if (variable.starts_with("LD_LIBRARY_PATH=")) library_path_ = split_path(variable.substr(16), "");
  }
}

void Libraries::read_cache() {
  cache_read_ = true;
  if (access(kCachePath, R_OK) != 0) return;
  MappedFile file = MappedFile::open(kCachePath);
  auto header = read_at<CacheHeader>(file.bytes(), 0);
  if (!header || std::string_view(header->magic, sizeof(header->magic)) != kCacheMagic) return;
  auto text_at = [&](u64 offset) {
    auto rest = file.bytes().subspan(std::min<u64>(offset, file.bytes().size()));
    return std::string(as_text(rest.first(strnlen(reinterpret_cast<const char*>(rest.data()), rest.size()))));
  };
  for (u64 i = 0; i < header->count; ++i) {
    auto entry = read_at<CacheEntry>(file.bytes(), sizeof(CacheHeader) + i * sizeof(CacheEntry));
    if (!entry) break;
    if (entry->flags == kCacheX8664 && entry->hardware == 0) cache_.emplace(text_at(entry->name), text_at(entry->path));
  }
}

void Libraries::read_musl_path() {
  std::ifstream file("/etc/ld-musl-x86_64.path");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::replace(text.begin(), text.end(), '\n', ':');
  musl_directories_ = split_path(text, "");
  if (musl_directories_.empty()) musl_directories_ = {"/lib", "/usr/local/lib", "/usr/lib"};
}

void Libraries::add_needs_of(const std::string& path, std::vector<MissingLibrary>& missing) { add({path, {}, false}, missing); }

void Libraries::add(const Object& parent, std::vector<MissingLibrary>& missing) { add_needs(parent, tree_.add_host(parent.path), missing); }

void Libraries::add_needs_of_copy(const std::string& host, std::vector<MissingLibrary>& missing) { add_needs({host, {}, false}, host, missing); }

void Libraries::add_needs(const Object& parent, const std::string& real, std::vector<MissingLibrary>& missing) {
  if (!visited_.insert(real).second) return;
  MappedFile file = MappedFile::open(real);
  if (!ElfView::looks_like_elf(file.bytes())) return;
  ElfView elf = ElfView::parse(file.bytes(), parent.path);
  ElfDynamic dynamic = elf.dynamic();
  std::string origin = parent_of(real);
  Object object = parent;
  if (auto interpreter = elf.interpreter()) {
    if (access(interpreter->c_str(), R_OK) != 0) {
      missing.push_back({*interpreter, parent.path});
    } else {
      tree_.add_host(*interpreter);
    }
    object.musl = base_name(*interpreter).starts_with("ld-musl");
    if (object.musl) read_musl_path();
  }
  auto runpath = split_path(dynamic.runpath, origin), own = split_path(dynamic.rpath, origin);
  if (runpath.empty()) object.rpath.insert(object.rpath.begin(), own.begin(), own.end());
  for (std::string_view name : dynamic.needed) {
    names_.insert(std::string(name));
    std::string found = find(name, object, runpath, runpath.empty());
    if (!found.empty()) {
      add({found, object.rpath, object.musl}, missing);
    } else if (!object.musl || !(name == "libc.so" || name.starts_with("libc.musl"))) {
      missing.push_back({std::string(name), parent.path});  // musl's libc is its dynamic linker
    }
  }
}

std::string Libraries::find(std::string_view name, const Object& parent, const std::vector<std::string>& runpath, bool use_rpath) {
  if (name.find('/') != std::string_view::npos) return access(std::string(name).c_str(), R_OK) == 0 ? std::string(name) : "";
  for (const std::vector<std::string>* directories :
       std::initializer_list<const std::vector<std::string>*>{use_rpath ? &parent.rpath : nullptr, &library_path_, &runpath}) {
    std::string path = directories ? find_in(*directories, name) : std::string();
    if (!path.empty()) return path;
  }
  if (parent.musl) return find_in(musl_directories_, name);
  if (!cache_read_) read_cache();
  std::string path = find_in(system_directories_, name);
  auto cached = cache_.find(name);
  if (cached != cache_.end() && is_usable(cached->second) && parent_of(cached->second) != parent_of(path)) {
    // The cache comes first. The image has none: a link in a directory that is searched anyway takes its place.
    bool standard = std::find(system_directories_.begin(), system_directories_.end(), parent_of(cached->second)) != system_directories_.end();
    if (!standard) tree_.add_link(tree_.resolve(system_directories_[0] + "/" + std::string(name)), cached->second);
    return cached->second;
  }
  return path;
}

}  // namespace husk::image
