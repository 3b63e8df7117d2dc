// What AF_UNIX sockets ask about their caller: paths from its working directory, its umask, who it is.
#undef linux
#include "kernel/linux/inet.h"
#include "kernel/linux/sockets.h"

namespace husk::linux {

namespace {

class CallerEnvironment final : public vfs::UnixEnvironment {
 public:
  Result<Ref<vfs::Inode>> make_node(std::string_view path) override {
    const FileContext& context = current_file_context();
    return tree().make_node(base(path), path, vfs::kSocketType | (0777 & ~context.umask), 0);
  }
  Result<Ref<vfs::Inode>> find_node(std::string_view path) override {
    vfs::Path found = TRY(tree().resolve(base(path), path, vfs::kFollow));
    return Ref<vfs::Inode>::share(found.inode());
  }
  vfs::SocketCredentials credentials() override {
    const Process& process = current_process();
    return {process.pid, process.credentials.euid, process.credentials.egid};
  }
  Result<i64> ioctl(u32 request, u64 argument) override { return interface_ioctl(request, argument); }

 private:
  static const vfs::Path& base(std::string_view path) {
    const FileContext& context = current_file_context();
    return !path.empty() && path[0] == '/' ? context.root : context.working_directory;
  }
};

constinit CallerEnvironment environment;

}  // namespace

vfs::UnixEnvironment& unix_environment() { return environment; }

}  // namespace husk::linux
