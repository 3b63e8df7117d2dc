// Stages the tree in a temporary directory and runs mkfs.erofs. Files are copied, not linked: a hard link would change
// the link count and change time of the user's files.
#include "image/rootfs/erofs.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace husk::image {
namespace {

void copy_contents(const std::string& from, int to) {
  MappedFile file = MappedFile::open(from);
  u64 left = file.bytes().size();
  while (left > 0) {
    ssize_t copied = copy_file_range(file.descriptor(), nullptr, to, nullptr, left, 0);
    if (copied <= 0) return write_all(to, file.bytes(), 0, from);  // between file systems that cannot
    left -= static_cast<u64>(copied);
  }
}

void set_time(const std::string& path, i64 seconds) {
  timespec times[2] = {{seconds, 0}, {seconds, 0}};
  if (utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) fail_errno(path);
}

void stage_file(const TreeNode& node, const std::vector<u8>* replaced, const std::string& path) {
  Descriptor file(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
  if (!file.valid()) fail_errno(path);
  if (replaced) {
    write_all(file.get(), *replaced, 0, path);
  } else if (!node.source.empty()) {
    copy_contents(node.source, file.get());
  } else {
    write_all(file.get(), as_bytes(node.content), 0, path);
  }
  if (fchmod(file.get(), node.mode) != 0) fail_errno(path);
}

void stage(const Tree& tree, const std::map<std::string, std::vector<u8>>& replaced, const std::string& root) {
  if (mkdir(root.c_str(), 0755) != 0 || chmod(root.c_str(), 0755) != 0) fail_errno(root);
  for (const auto& [path, node] : tree.nodes()) {
    std::string at = root + path;
    if (node.kind == TreeNode::Kind::directory) {
      if (mkdir(at.c_str(), 0755) != 0) fail_errno(at);
    } else if (node.kind == TreeNode::Kind::link) {
      if (symlink(node.content.c_str(), at.c_str()) != 0) fail_errno(at);
    } else {
      auto other = replaced.find(path);
      stage_file(node, other == replaced.end() ? nullptr : &other->second, at);
    }
    if (node.kind != TreeNode::Kind::directory) set_time(at, node.modified);
  }
  // Directories last and from the inside out: their contents have changed their times.
  for (auto entry = tree.nodes().rbegin(); entry != tree.nodes().rend(); ++entry) {
    if (entry->second.kind != TreeNode::Kind::directory) continue;
    std::string at = root + entry->first;
    if (chmod(at.c_str(), entry->second.mode | 0700) != 0) fail_errno(at);
    set_time(at, 0);
  }
  set_time(root, 0);
}

void run_mkfs(const std::string& image, const std::string& root) {
  std::string output = image + ".log";
  const char* arguments[] = {"mkfs.erofs", "--quiet",         "-x-1",        "-U",         "00000000-0000-0000-0000-000000000000",
                             "--all-root", "-Enoinline_data", image.c_str(), root.c_str(), nullptr};
  // -T would give all files one time. This fixes the time of the file system and leaves the files theirs, as long as
  // they are older (mkfs.erofs 1.5 does not tell it in its help).
  std::vector<char*> variables;
  for (char** variable = environ; *variable; ++variable) {
    if (!std::string_view(*variable).starts_with("SOURCE_DATE_EPOCH=")) variables.push_back(*variable);
  }
  char date[] = "SOURCE_DATE_EPOCH=4102444800";  // 2100-01-01
  variables.push_back(date);
  variables.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child;
  int error = posix_spawnp(&child, arguments[0], &actions, nullptr, const_cast<char**>(arguments), variables.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw Error("mkfs.erofs cannot be started: " + std::string(strerror(error)) + "; apt-get install erofs-utils");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  MappedFile log = MappedFile::open(output);
  throw Error("mkfs.erofs failed: " + std::string(as_text(log.bytes())));
}

}  // namespace

std::string write_erofs(const Tree& tree, const std::map<std::string, std::vector<u8>>& replaced, const std::string& directory) {
  std::string root = directory + "/root", image = directory + "/root.erofs";
  stage(tree, replaced, root);
  run_mkfs(image, root);
  return image;
}

}  // namespace husk::image
