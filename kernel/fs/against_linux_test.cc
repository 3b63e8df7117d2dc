// Random operations on names and files, done on a directory of the host's Linux and on husk's tree: errnos, contents, link
// counts and listings must be the same. On tmpfs, and on an overlay over an EROFS image of the directory's first state.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <random>

#include "kernel/fs/test_image.h"
#include "kernel/fs/test_support.h"

namespace husk {
namespace {

namespace disk = std::filesystem;
using test::code;

class AgainstLinux : public test::Machine {
 protected:
  void SetUp() override {
    Machine::SetUp();
    char name[] = "/dev/shm/husk-fs-test-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    host_ = name;
    host_fd_ = open(name, O_RDONLY | O_DIRECTORY);
  }
  void TearDown() override {
    close_all();
    close(host_fd_);
    disk::remove_all(host_);
  }

  void use(Ref<vfs::Inode> root) {
    tree_ = vfs::Tree::create(std::move(root)).release();
    root_ = tree_->root();
  }
  unsigned pick(unsigned limit) { return std::uniform_int_distribution<unsigned>(0, limit - 1)(random_); }

  std::string some_path() {
    static const char* kNames[] = {"a", "b", "c", "d", "e"};
    std::string path;
    unsigned components = 1 + pick(3);
    bool up_used = false, named = false;
    for (unsigned i = 0; i < components; ++i) {
      if (i > 0) path += pick(10) == 0 ? "//" : "/";
      unsigned kind = pick(30);
      if (kind == 0) path += ".";
      else if (kind == 1 && named && !up_used) path += "..", up_used = true;
      else if (kind == 2 && pick(10) == 0) path += std::string(pick(2) + 255, 'x');
      else path += kNames[pick(5)], named = true;
    }
    if (pick(8) == 0) path += "/";
    return path;
  }

  static int host_result(long value) { return value < 0 ? errno : 0; }

  void step(int number) {
    std::string path = some_path(), other = some_path(), what;
    int expected = 0, got = 0;
    switch (pick(13)) {
      case 0:
      case 1:
        what = "mkdir " + path;
        expected = host_result(mkdirat(host_fd_, path.c_str(), 0755));
        got = code(tree_->make_node(root_, path, vfs::kDirectoryType | 0755, 0));
        break;
      case 2: {
        static const char* kTargets[] = {"a", "b/c", "./d", "c/", "e", "a/b/c"};
        const char* target = kTargets[pick(6)];
        what = "symlink " + std::string(target) + " " + path;
        expected = host_result(symlinkat(target, host_fd_, path.c_str()));
        got = code(tree_->make_symlink(root_, path, target));
        break;
      }
      case 3: {
        bool follow = pick(2) == 0;
        what = "link " + path + " " + other + (follow ? " follow" : "");
        expected = host_result(linkat(host_fd_, path.c_str(), host_fd_, other.c_str(), follow ? AT_SYMLINK_FOLLOW : 0));
        got = code(tree_->link(root_, path, root_, other, follow));
        break;
      }
      case 4:
        what = "unlink " + path;
        expected = host_result(unlinkat(host_fd_, path.c_str(), 0));
        got = code(tree_->unlink(root_, path, false));
        break;
      case 5:
        what = "rmdir " + path;
        expected = host_result(unlinkat(host_fd_, path.c_str(), AT_REMOVEDIR));
        got = code(tree_->unlink(root_, path, true));
        break;
      case 6:
      case 7: {
        unsigned flags = pick(3);
        what = "rename " + path + " " + other + " flags " + std::to_string(flags);
        expected = host_result(renameat2(host_fd_, path.c_str(), host_fd_, other.c_str(), flags));
        got = code(tree_->rename(root_, path, root_, other, flags));
        break;
      }
      case 8: {
        what = "truncate " + path;
        off_t size = pick(20000);
        int fd = openat(host_fd_, path.c_str(), O_WRONLY);
        expected = fd < 0 ? errno : host_result(ftruncate(fd, size));
        if (fd >= 0) close(fd);
        auto file = tree_->open(root_, path, O_WRONLY, 0);
        got = file.ok() ? code((*file)->truncate(size)) : code(file);
        break;
      }
      default: open_and_use(path, what, expected, got);
    }
    ASSERT_EQ(expected, got) << "step " << number << ": " << what;
    if (getenv("HUSK_TEST_TRACE") != nullptr) printf("%d: %s -> %d\n", number, what.c_str(), got);
  }

  void open_and_use(const std::string& path, std::string& what, int& expected, int& got) {
    constexpr int kAccess[] = {O_RDONLY, O_WRONLY, O_RDWR};
    constexpr int kExtra[] = {O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW};
    int flags = kAccess[pick(3)];
    for (int extra : kExtra) {
      if (pick(extra == O_CREAT ? 2 : 6) == 0) flags |= extra;
    }
    if ((flags & O_CREAT) == 0) flags &= ~O_EXCL;
    if ((flags & O_CREAT) != 0) flags &= ~O_DIRECTORY;
    char text[32];
    snprintf(text, sizeof(text), " flags 0%o", flags);
    what = "open " + path + text;
    int fd = openat(host_fd_, path.c_str(), flags, 0644);
    expected = fd < 0 ? errno : 0;
    auto file = tree_->open(root_, path, static_cast<u32>(flags), 0644);
    got = code(file);
    if (fd < 0 || !file.ok()) {
      if (fd >= 0) close(fd);
      return;
    }
    pairs_.push_back({fd, file.release()});
    if (pairs_.size() > 6) {
      close(pairs_.front().fd);
      pairs_.erase(pairs_.begin());
    }
    use_file(pairs_[pick(static_cast<unsigned>(pairs_.size()))], what);
  }

  struct Pair {
    int fd;
    Ref<vfs::File> file;
  };
  void use_file(Pair& pair, std::string& what) {
    if (vfs::Stat stat = pair.file->stat().release(); (stat.mode & vfs::kTypeMask) != vfs::kRegular) return;
    for (unsigned i = pick(4); i > 0; --i) {
      unsigned operation = pick(6);
      what += " file-operation " + std::to_string(operation);
      if (operation == 0 && pair.file->writable()) {
        std::string bytes(pick(pick(2) == 0 ? 100 : 10000) + 1, static_cast<char>('a' + pick(26)));
        ASSERT_EQ(write(pair.fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
        ASSERT_EQ(test::write(*pair.file, bytes).value_or(0), bytes.size());
      } else if (operation == 1 && pair.file->readable()) {
        std::string bytes(pick(9000) + 1, 0);
        bytes.resize(static_cast<size_t>(read(pair.fd, bytes.data(), bytes.size())));
        ASSERT_EQ(test::read(*pair.file, bytes.empty() ? 1 : bytes.size()), bytes) << what;
      } else if (operation == 2) {
        int whence = static_cast<int>(pick(3));
        off_t offset = static_cast<off_t>(pick(12000)) - 2000;
        off_t expected = lseek(pair.fd, offset, whence);
        auto got = pair.file->seek(offset, whence);
        ASSERT_EQ(expected < 0 ? -errno : expected, got.ok() ? static_cast<off_t>(*got) : -got.error().code()) << what;
      } else if (operation == 3 && pair.file->writable()) {
        off_t offset = pick(20000), size = pick(9000) + 1;
        int mode = pick(2) == 0 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
        ASSERT_EQ(host_result(fallocate(pair.fd, mode, offset, size)), code(pair.file->allocate(mode, offset, size))) << what;
      } else if (operation == 4 && pair.file->writable()) {
        off_t size = pick(15000);
        ASSERT_EQ(host_result(ftruncate(pair.fd, size)), code(pair.file->truncate(size)));
      } else if (operation == 5) {
        struct stat expected;
        fstat(pair.fd, &expected);
        vfs::Stat got = pair.file->stat().release();
        ASSERT_EQ(static_cast<u64>(expected.st_size), got.size) << what;
        ASSERT_EQ(expected.st_nlink, got.links) << what;
      }
    }
  }
  void close_all() {
    for (Pair& pair : pairs_) close(pair.fd);
    pairs_.clear();
  }

  // Type, links, size and content of everything below a directory.
  void host_state(const std::string& path, std::map<std::string, std::string>& out) {
    struct stat info;
    ASSERT_EQ(fstatat(host_fd_, path.c_str(), &info, AT_SYMLINK_NOFOLLOW), 0);
    std::string text = std::to_string(info.st_mode & S_IFMT) + " ";
    if (compare_links_ || S_ISDIR(info.st_mode)) text += std::to_string(info.st_nlink) + " ";
    if (S_ISREG(info.st_mode)) {
      int fd = openat(host_fd_, path.c_str(), O_RDONLY);
      std::string bytes(static_cast<size_t>(info.st_size), 0);
      ASSERT_EQ(read(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
      close(fd);
      text += bytes;
    } else if (S_ISLNK(info.st_mode)) {
      char target[256];
      text += std::string(target, static_cast<size_t>(readlinkat(host_fd_, path.c_str(), target, sizeof(target))));
    }
    out[path] = text;
    if (!S_ISDIR(info.st_mode)) return;
    for (const auto& entry : disk::directory_iterator(host_ + "/" + path)) host_state(path + "/" + entry.path().filename().string(), out);
  }
  void own_state(const std::string& path, std::map<std::string, std::string>& out) {
    auto place = tree_->resolve(root_, path, vfs::kNoFollow);
    ASSERT_TRUE(place.ok()) << path;
    vfs::Stat info = place->inode()->stat();
    std::string text = std::to_string(info.mode & vfs::kTypeMask) + " ";
    bool directory = (info.mode & vfs::kTypeMask) == vfs::kDirectoryType;
    if (compare_links_ || directory) text += std::to_string(info.links) + " ";
    if ((info.mode & vfs::kTypeMask) == vfs::kRegular) {
      text += test::read(*tree_->open(root_, path, O_RDONLY, 0).release(), info.size);
    } else if ((info.mode & vfs::kTypeMask) == vfs::kSymlink) {
      text += std::string(place->inode()->read_link().release().view());
    }
    out[path] = text;
    if (!directory) return;
    auto file = tree_->open(root_, path, O_RDONLY | O_DIRECTORY, 0).release();
    // In small portions, as getdents(2) does.
    for (;;) {
      test::Names names(3);
      ASSERT_TRUE(file->read_directory(names).ok());
      if (names.names.empty()) break;
      for (const auto& name : names.names) {
        if (name.name == "." || name.name == "..") continue;
        ASSERT_FALSE(out.contains(path + "/" + name.name)) << "listed twice: " << path << "/" << name.name;
        own_state(path + "/" + name.name, out);
      }
    }
  }
  void compare() {
    std::map<std::string, std::string> expected, got;
    host_state(".", expected);
    own_state(".", got);
    for (auto& [path, text] : expected) ASSERT_EQ(text, got[path]) << path;
    for (auto& [path, text] : got) ASSERT_TRUE(expected.contains(path)) << path << ": " << text;
  }
  void run(unsigned seed, int steps) {
    random_.seed(seed);
    for (int i = 0; i < steps; ++i) {
      step(i);
      if (HasFatalFailure()) return;
      if (i % 50 == 0) compare();
      if (HasFatalFailure()) return;
    }
    compare();
  }

  std::mt19937 random_;
  std::string host_;
  int host_fd_ = -1;
  Owned<vfs::Tree> tree_;
  vfs::Path root_;
  std::vector<Pair> pairs_;
  bool compare_links_ = true;
};

TEST_F(AgainstLinux, tmpfs) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    for (const auto& entry : disk::directory_iterator(host_)) disk::remove_all(entry.path());
    use(fs::make_tmpfs(16 * kMiB, 0755).release());
    run(seed, 600);
    close_all();
    tree_.reset();
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(AgainstLinux, overlay) {
  if (!test::have_mkfs()) GTEST_SKIP() << "needs mkfs.erofs";
  for (unsigned seed = 0; seed < 20; ++seed) {
    for (const auto& entry : disk::directory_iterator(host_)) disk::remove_all(entry.path());
    random_.seed(seed + 1000);
    test::fill_directory(host_, random_, 3);
    test::ErofsImage image(host_, seed % 2 == 0 ? "" : "-Enoinline_data");
    auto lower = fs::make_erofs(image.bytes(), image.physical()).release();
    use(fs::make_overlay(std::move(lower), fs::make_tmpfs(16 * kMiB, 0755).release()).release());
    run(seed, 600);
    close_all();
    tree_.reset();
    if (HasFatalFailure()) FAIL() << "seed " << seed;
  }
}

TEST_F(AgainstLinux, deleted_files_give_their_memory_back) {
  u64 before = mem::memory_statistics().free;
  {
    use(fs::make_tmpfs(32 * kMiB, 0755).release());
    auto file = tree_->open(root_, "big", O_CREAT | O_RDWR, 0644).release();
    std::string bytes(kMiB, 'x');
    for (int i = 0; i < 8; ++i) EXPECT_EQ(*test::write(*file, bytes), bytes.size());
    EXPECT_LT(mem::memory_statistics().free, before - 8 * kMiB + 64 * kKiB);
    EXPECT_TRUE(tree_->unlink(root_, "big", false).ok());
    EXPECT_EQ(test::read(*file, 3, &(const u64&)u64{kMiB}), "xxx");
    file = nullptr;
    EXPECT_GT(mem::memory_statistics().free + 256 * kKiB, before);
  }
}

}  // namespace
}  // namespace husk
