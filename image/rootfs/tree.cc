// Path walking for Tree.
#include "image/rootfs/tree.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

namespace husk::image {
namespace {

constexpr int kLinksMax = 40;  // as Linux

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < path.size();) {
    size_t slash = std::min(path.find('/', at), path.size());
    if (slash > at) parts.push_back(path.substr(at, slash - at));
    at = slash + 1;
  }
  return parts;
}

std::string read_link(const std::string& path) {
  std::string target(4096, '\0');
  ssize_t size = readlink(path.c_str(), target.data(), target.size());
  if (size < 0) fail_errno(path);
  target.resize(static_cast<size_t>(size));
  return target;
}

TreeNode file_node(const std::string& host, const struct stat& status, Times times) {
  TreeNode node;
  node.kind = TreeNode::Kind::file;
  node.mode = (status.st_mode & 0777) | 0400;
  node.source = host;
  node.modified = times == Times::keep ? status.st_mtime : 0;
  return node;
}

// Walks `path` part by part. `link_of` tells a link's target or nothing; returns the path without links.
template <typename LinkOf>
std::string walk(const std::string& path, LinkOf link_of) {
  std::string done;
  auto rest = parts_of(path);
  for (int links = 0; !rest.empty();) {
    std::string part = rest.front();
    rest.erase(rest.begin());
    if (part == ".") continue;
    if (part == "..") {
      done = done.substr(0, done.empty() ? 0 : done.rfind('/'));
      continue;
    }
    std::string next = done + "/" + part;
    std::optional<std::string> target = link_of(next);
    if (!target) {
      done = next;
      continue;
    }
    if (++links > kLinksMax) throw Error(path + ": too many symbolic links");
    if (target->starts_with("/")) done.clear();
    auto more = parts_of(*target);
    rest.insert(rest.begin(), more.begin(), more.end());
  }
  return done.empty() ? "/" : done;
}

}  // namespace

std::string absolute_path(const std::string& path) {
  std::string text = std::filesystem::absolute(path.empty() ? "." : path).lexically_normal().string();
  while (text.size() > 1 && text.ends_with("/")) text.pop_back();
  return text;
}
std::string base_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }
std::string parent_of(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

bool Tree::contains(const std::string& path) const {
  std::string real = resolve(path);
  return real == "/" || nodes_.contains(real);
}

std::string Tree::resolve(const std::string& path) const {
  return walk(path, [&](const std::string& part) -> std::optional<std::string> {
    auto node = nodes_.find(part);
    if (node == nodes_.end() || node->second.kind != TreeNode::Kind::link) return std::nullopt;
    return node->second.content;
  });
}

TreeNode& Tree::place(const std::string& path) {
  std::string parent = parent_of(path);
  if (parent != "/" && !nodes_.contains(parent)) place(parent);
  return nodes_[path];
}

std::string Tree::add_host(const std::string& path, Times times) {
  std::string real = walk(path, [&](const std::string& part) -> std::optional<std::string> {
    auto known = nodes_.find(part);
    if (known != nodes_.end()) {
      return known->second.kind == TreeNode::Kind::link ? std::optional(known->second.content) : std::nullopt;
    }
    struct stat status;
    if (lstat(part.c_str(), &status) != 0) fail_errno(part == path ? path : path + " (" + part + ")");
    if (!S_ISLNK(status.st_mode)) return std::nullopt;
    std::string target = read_link(part);
    add_link(part, target);
    return target;
  });
  if (nodes_.contains(real)) return real;
  struct stat status;
  if (stat(real.c_str(), &status) != 0) fail_errno(path);
  if (S_ISDIR(status.st_mode)) {
    add_directory(real, status.st_mode & 01777);
  } else if (S_ISREG(status.st_mode)) {
    place(real) = file_node(real, status, times);
  } else {
    throw Error(path + ": is neither a file nor a directory; leave it out");
  }
  return real;
}

void Tree::add_host_directory(const std::string& host, const std::string& to, const std::function<bool(const std::string&)>& keep) {
  std::string target = resolve(to);
  if (target != "/") add_directory(target);
  std::error_code error;
  std::vector<std::filesystem::directory_entry> entries;
  for (const auto& entry : std::filesystem::directory_iterator(host, error)) entries.push_back(entry);
  if (error) throw Error(host + ": " + error.message());
  for (const auto& entry : entries) {
    std::string from = entry.path().string(), name = entry.path().filename().string();
    if (!keep(from)) continue;
    std::string place_at = target == "/" ? "/" + name : target + "/" + name;
    if (entry.is_symlink()) {
      add_link(place_at, read_link(from));
      // Where the tree keeps its place, what a link leads to comes along, if it exists.
      if (host == target && std::filesystem::is_regular_file(from, error)) add_host(from, Times::keep);
    } else if (entry.is_directory()) {
      add_host_directory(from, place_at, keep);
    } else if (entry.is_regular_file()) {
      add_file_as(from, place_at, Times::keep);
    } else {
      left_out_.push_back(from);
    }
  }
}

void Tree::add_file_as(const std::string& host, const std::string& to, Times times) {
  struct stat status;
  if (stat(host.c_str(), &status) != 0) fail_errno(host);
  if (!S_ISREG(status.st_mode)) throw Error(host + ": is not a regular file");
  place(resolve(to)) = file_node(host, status, times);
}

void Tree::add_text(const std::string& path, std::string text, u32 mode) {
  TreeNode& node = place(resolve(path));
  node = {};
  node.kind = TreeNode::Kind::file;
  node.mode = mode;
  node.content = std::move(text);
}

void Tree::add_link(const std::string& path, std::string target) {
  if (nodes_.contains(path)) return;
  TreeNode& node = place(path);
  node.kind = TreeNode::Kind::link;
  node.mode = 0777;
  node.content = std::move(target);
}

void Tree::add_directory(const std::string& path, u32 mode) {
  if (path == "/") return;
  TreeNode& node = place(path);
  if (node.kind != TreeNode::Kind::directory) throw Error(path + ": is needed as a directory but is a file");
  node.mode = mode;
}

}  // namespace husk::image
