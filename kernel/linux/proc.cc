// /proc and /sys: the trees. The texts of a process are in proc_process.cc and proc_maps.cc, those of the machine in
// proc_machine.cc, /proc/sys and /sys in proc_settings.cc. proc(5), sysfs(5).
#undef linux
#include "kernel/linux/proc.h"

#include <charconv>

#include "base/format.h"
#include "kernel/linux/linux.h"
#include "kernel/linux/task.h"

namespace husk::linux {

Result<void> print(String& out, const char* format, ...) {
  char piece[512];
  va_list arguments;
  va_start(arguments, format);
  size_t length = format_to_v(piece, sizeof(piece), format, arguments);
  va_end(arguments);
  if (length < sizeof(piece)) return out.append({piece, length});
  Vec<char> large;  // a long path
  TRY(large.resize(length + 1));
  va_start(arguments, format);
  format_to_v(large.data(), length + 1, format, arguments);
  va_end(arguments);
  return out.append({large.data(), length});
}

// --- the builder -------------------------------------------------------------------------------------------------------

namespace {

struct SplitPath {
  std::string_view folder, name;
};
SplitPath split(std::string_view path) {
  size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

Result<void> constant_text(void* context, String& out) { return out.append(static_cast<const char*>(context)); }

}  // namespace

Result<TreeBuilder> TreeBuilder::create() {
  TreeBuilder builder;
  Ref<fs::SyntheticDirectory> root = TRY(fs::make_synthetic_directory());
  TRY(builder.folders_.push_back({"", std::move(root)}));
  return builder;
}

Result<fs::SyntheticDirectory*> TreeBuilder::directory(std::string_view path) {
  for (Folder& folder : folders_) {
    if (folder.path == path) return folder.directory.get();
  }
  SplitPath parts = split(path);
  fs::SyntheticDirectory* parent = TRY(directory(parts.folder));
  Ref<fs::SyntheticDirectory> made = TRY(fs::add_directory(*parent, parts.name));
  fs::SyntheticDirectory* result = made.get();
  TRY(folders_.push_back({path, std::move(made)}));
  return result;
}

Result<void> TreeBuilder::text(std::string_view path, fs::TextFunction function, void* context, Writable writable) {
  SplitPath parts = split(path);
  fs::SyntheticDirectory* parent = TRY(directory(parts.folder));
  auto add = writable == Writable::yes ? fs::add_writable_text : fs::add_text;
  return add(*parent, parts.name, function, context);
}

Result<void> TreeBuilder::constant(std::string_view path, const char* content, Writable writable) {
  return text(path, constant_text, const_cast<char*>(content), writable);
}

Result<void> TreeBuilder::link(std::string_view path, fs::TextFunction target, void* context) {
  SplitPath parts = split(path);
  return fs::add_symlink(*TRY(directory(parts.folder)), parts.name, target, context);
}

Result<void> TreeBuilder::dynamic(std::string_view path, fs::DynamicDirectory& entries) {
  SplitPath parts = split(path);
  return fs::add_dynamic(*TRY(directory(parts.folder)), parts.name, entries);
}

Result<void> TreeBuilder::folder(std::string_view path) {
  (void)TRY(directory(path));
  return {};
}

// --- /proc ---------------------------------------------------------------------------------------------------------------

namespace {

Result<int> number(std::string_view name) {
  int value = 0;
  auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
  bool whole = error == std::errc() && end == name.data() + name.size();
  if (!whole || value < 0 || name[0] == '+' || (name[0] == '0' && name.size() > 1)) return Error(ENOENT);
  return value;
}

bool visit_number(vfs::DirectoryVisitor& visitor, u64 inode, u8 type, int value, u64 next) {
  char text[12];
  size_t length = format_to(text, sizeof(text), "%d", value);
  return visitor.visit({inode, type, {text, length}}, next);
}

constexpr u8 kDirectory = 4, kLink = 10;  // DT_DIR, DT_LNK

// /proc/<pid>/fd
class Descriptors final : public fs::DynamicDirectory {
 public:
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    auto file = init_process().files->get(TRY(number(name)));
    if (!file.ok()) return Error(ENOENT);
    return fs::make_file_link_inode(file.release());
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    const FdTable& files = *init_process().files;
    for (int fd = files.next_used(static_cast<int>(from)); fd >= 0; fd = files.next_used(fd + 1)) {
      if (!visit_number(visitor, 1000 + static_cast<u64>(fd), kLink, fd, static_cast<u64>(fd) + 1)) break;
    }
    return {};
  }
};

Result<void> descriptor_text(void* context, String& out) {
  auto file = TRY(init_process().files->get(static_cast<int>(reinterpret_cast<u64>(context))));
  return print(out, "pos:\t%llu\nflags:\t0%o\nmnt_id:\t1\n", static_cast<unsigned long long>(file->position), file->flags);
}

// /proc/<pid>/fdinfo
class DescriptorTexts final : public fs::DynamicDirectory {
 public:
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    int fd = TRY(number(name));
    if (!init_process().files->get(fd).ok()) return Error(ENOENT);
    return fs::make_text_inode(descriptor_text, reinterpret_cast<void*>(static_cast<u64>(fd)));
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    const FdTable& files = *init_process().files;
    for (int fd = files.next_used(static_cast<int>(from)); fd >= 0; fd = files.next_used(fd + 1)) {
      if (!visit_number(visitor, 5000 + static_cast<u64>(fd), 8, fd, static_cast<u64>(fd) + 1)) break;
    }
    return {};
  }
};

// /proc/<pid>/task
class Tasks final : public fs::DynamicDirectory {
 public:
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    int tid = TRY(number(name));
    if (find_task(tid) == nullptr) return Error(ENOENT);
    TreeBuilder builder = TRY(TreeBuilder::create());
    TRY(add_process_texts(builder, tid));
    return builder.inode();
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    u64 position = 0;
    for (Task& task : init_process().tasks) {
      if (position++ < from) continue;
      if (!visit_number(visitor, 100000 + static_cast<u64>(task.tid), kDirectory, task.tid, position)) break;
    }
    return {};
  }
};

// What /proc has besides its fixed names: processes. Threads can be looked up, but are not listed, as on Linux.
class Processes final : public fs::DynamicDirectory {
 public:
  Result<void> create() {
    process_ = TRY(make_process_inode()).leak();  // for good
    return {};
  }
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    int id = TRY(number(name));
    if (id != init_process().pid && find_task(id) == nullptr) return Error(ENOENT);
    return Ref<vfs::Inode>::share(process_);
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    if (from == 0) (void)visit_number(visitor, process_->stat().inode, kDirectory, init_process().pid, 1);
    return {};
  }

 private:
  vfs::Inode* process_ = nullptr;
};

constinit Descriptors descriptors;
constinit DescriptorTexts descriptor_texts;
constinit Tasks tasks;
constinit Processes processes;

Result<void> self_link(void*, String& out) { return print(out, "%d", current_process().pid); }
Result<void> network_link(void*, String& out) { return out.append("../net"); }
Result<void> thread_self_link(void*, String& out) { return print(out, "%d/task/%d", current_process().pid, current_task().tid); }

}  // namespace

Result<Ref<vfs::Inode>> make_process_inode() {
  TreeBuilder builder = TRY(TreeBuilder::create());
  TRY(add_process_texts(builder, 0));
  TRY(builder.dynamic("fd", descriptors));
  TRY(builder.dynamic("fdinfo", descriptor_texts));
  TRY(builder.dynamic("task", tasks));
  TRY(builder.link("net", network_link));
  return builder.inode();
}

namespace {

Result<void> build_proc(TreeBuilder& builder) {
  TRY(add_machine_texts(builder));
  TRY(add_settings(builder));
  TRY(add_network_texts(builder));
  TRY(builder.link("self", self_link));
  TRY(builder.link("thread-self", thread_self_link));
  TRY(processes.create());
  fs::set_rest(builder.root(), processes);
  return {};
}

// A root whose tree is made when somebody first looks: most programs see little of it, and boot sees nothing.
class LazyTree final : public fs::DynamicDirectory {
 public:
  explicit constexpr LazyTree(Result<void> (*build)(TreeBuilder&)) : build_(build) {}
  Result<Ref<vfs::Inode>> lookup(std::string_view name) override {
    TRY(make());
    return root_->lookup(name);
  }
  Result<void> list(u64 from, vfs::DirectoryVisitor& visitor) override {
    TRY(make());
    struct Shifted final : vfs::DirectoryVisitor {  // the tree's own "." and ".." are positions 0 and 1
      explicit Shifted(vfs::DirectoryVisitor& visitor) : out(visitor) {}
      bool visit(const vfs::DirectoryEntry& entry, u64 next_offset) override { return out.visit(entry, next_offset - 2); }
      vfs::DirectoryVisitor& out;
    } shifted(visitor);
    u64 position = from + 2;
    return root_->list(position, shifted);
  }

 private:
  Result<void> make() {
    if (root_ != nullptr) return {};
    TreeBuilder builder = TRY(TreeBuilder::create());
    TRY(build_(builder));
    root_ = builder.release_root().leak();
    return {};
  }
  Result<void> (*build_)(TreeBuilder&);
  fs::SyntheticDirectory* root_ = nullptr;
};

constinit LazyTree proc_tree(build_proc);
constinit LazyTree sys_tree(build_sys);

}  // namespace

Result<Ref<vfs::Inode>> make_proc() { return fs::make_dynamic_inode(proc_tree); }
Result<Ref<vfs::Inode>> make_sys() { return fs::make_dynamic_inode(sys_tree); }

}  // namespace husk::linux
