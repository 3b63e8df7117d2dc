// `husk doctor`: what this host can do for husk, and how to mend what it cannot.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/embedded.h"
#include "cli/options.h"
#include "host/file_descriptor.h"

namespace husk::cli {
namespace {

struct Check {
  std::string name;
  enum { good, note, bad } state;
  std::string found, fix;
};

// The words of the first line of /proc/cpuinfo that says what the processor can do; empty if there is none.
std::string processor_flags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) == 0) return line + " ";
  }
  return "";
}

bool in_a_virtual_machine() { return processor_flags().find(" hypervisor ") != std::string::npos; }

Check check_kvm() {
  Check check{"kvm", Check::bad, "", ""};
  host::FileDescriptor kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) {
    int error = errno;
    check.found = std::string("/dev/kvm: ") + strerror(error);
    check.fix =
        error == ENOENT && in_a_virtual_machine()
            ? "this host is a virtual machine: have it started with nested virtualization, then load the module (modprobe kvm_intel or kvm_amd)"
        : error == ENOENT ? "load the module (modprobe kvm_intel or kvm_amd) and switch virtualization on in the firmware"
        : error == EACCES ? "join the group that owns it: usermod -aG kvm $USER, then log in again"
                          : "see dmesg";
    return check;
  }
  int version = ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    check.found = "/dev/kvm has API version " + std::to_string(version) + ", not 12";
    check.fix = "use a kernel with a stable KVM (2.6.22 or later)";
    return check;
  }
  host::FileDescriptor vm(ioctl(kvm.get(), KVM_CREATE_VM, 0));
  if (!vm) {
    check.found = std::string("no virtual machine can be created: ") + strerror(errno);
    check.fix = "see dmesg; another hypervisor may hold the processor's virtualization";
    return check;
  }
  for (int capability : {KVM_CAP_IOEVENTFD, KVM_CAP_READONLY_MEM, KVM_CAP_IMMEDIATE_EXIT}) {
    if (ioctl(vm.get(), KVM_CHECK_EXTENSION, capability) <= 0) {
      check.found = "KVM lacks capability " + std::to_string(capability);
      check.fix = "use a newer kernel";
      return check;
    }
  }
  check.state = Check::good;
  check.found = "/dev/kvm works, API version 12, a machine can be created";
  return check;
}

std::string find_in_path(const std::string& program) {
  const char* variable = getenv("PATH");
  std::string rest = std::string(variable == nullptr ? "/usr/bin:/bin" : variable) + ":/usr/sbin:/sbin";
  for (size_t start = 0; start < rest.size();) {
    size_t end = std::min(rest.find(':', start), rest.size());
    std::string path = rest.substr(start, end - start) + "/" + program;
    if (access(path.c_str(), X_OK) == 0) return path;
    start = end + 1;
  }
  return "";
}

Check check_program(const std::string& name, const std::string& purpose, const std::string& package, bool needed) {
  std::string path = find_in_path(name);
  if (!path.empty()) return {name, Check::good, path, ""};
  return {name, needed ? Check::bad : Check::note, "not found; " + purpose, "apt-get install " + package};
}

Check check_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string setting;
  std::getline(file, setting);
  if (setting.find("[never]") == std::string::npos && !setting.empty()) return {"huge pages", Check::good, setting, ""};
  return {"huge pages", Check::note, setting.empty() ? "the kernel has no transparent huge pages" : setting,
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (guest memory is several times faster to touch)"};
}

// Guest code runs on this processor with KVM only; QEMU's TCG brings a processor of its own.
Check check_processor(bool kvm) {
  std::string flags = processor_flags(), missing;
  if (flags.empty()) return {"processor", Check::note, "/proc/cpuinfo tells nothing", ""};
  for (const char* flag : {"fsgsbase", "xsave", "constant_tsc"}) {
    if (flags.find(std::string(" ") + flag + " ") == std::string::npos) missing += std::string(missing.empty() ? "" : ", ") + flag;
  }
  if (missing.empty()) return {"processor", Check::good, "has fsgsbase, xsave, a constant TSC", ""};
  return {"processor", kvm ? Check::bad : Check::note, "lacks " + missing + (kvm ? "" : ", which machines on KVM need; in QEMU they do not"),
          "use a processor of 2013 (Intel) or 2019 (AMD), or later" + std::string(kvm ? ", or --hypervisor qemu" : "")};
}

Check check_user_network() {
  // Read as the network's process would find it; loading it here would tell no more.
  for (const char* directory : {"/usr/lib/x86_64-linux-gnu/", "/lib/x86_64-linux-gnu/", "/usr/lib64/", "/lib64/", "/usr/lib/", "/usr/local/lib/"}) {
    std::string path = std::string(directory) + "libslirp.so.0";
    if (access(path.c_str(), R_OK) == 0) return {"network", Check::good, path, ""};
  }
  return {"network", Check::note, "libslirp.so.0 not found; machines have no network but --net tap", "apt-get install libslirp0"};
}

Check check_tap() {
  host::FileDescriptor tun(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun) {
    return {"tap interfaces", Check::note, std::string("/dev/net/tun: ") + strerror(errno) + "; --net tap does not work",
            errno == EACCES ? "chmod 0666 /dev/net/tun" : "modprobe tun"};
  }
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(tun.get(), TUNSETIFF, &request) == 0) return {"tap interfaces", Check::good, "--net tap can make them", ""};
  return {"tap interfaces", Check::note, "--net tap=INTERFACE works with one that was made for you; making one needs CAP_NET_ADMIN",
          "ip tuntap add tap0 mode tap user $USER && ip link set tap0 up (as root)"};
}

Check check_kernel() {
  if (embedded_kernel().size() > 1 && embedded_nub().size() > 1) return {"husk kernel", Check::good, "is part of this command", ""};
  return {"husk kernel", Check::bad, "this command was built without kernel and nub", "build it with: make"};
}

}  // namespace

int doctor_command(bool json) {
  Check kvm = check_kvm();
  std::vector<Check> checks = {kvm,
                               check_processor(kvm.state == Check::good),
                               check_kernel(),
                               check_program("mkfs.erofs", "images cannot be built", "erofs-utils", true),
                               check_program("qemu-system-x86_64", "images run only where KVM works", "qemu-system-x86", false),
                               check_user_network(),
                               check_tap(),
                               check_huge_pages()};
  bool runs = checks[0].state == Check::good || checks[4].state == Check::good;
  bool healthy = runs && checks[1].state != Check::bad && checks[2].state == Check::good && checks[3].state == Check::good;
  constexpr const char* states[] = {"ok", "note", "bad"};
  if (json) {
    nlohmann::json out;
    for (const Check& check : checks) {
      out["checks"].push_back({{"name", check.name}, {"state", states[check.state]}, {"found", check.found}, {"fix", check.fix}});
    }
    out["healthy"] = healthy;
    puts(out.dump(2).c_str());
  } else {
    for (const Check& check : checks) {
      printf("%-5s %-19s %s\n", states[check.state], check.name.c_str(), check.found.c_str());
      if (check.state != Check::good && !check.fix.empty()) printf("%26s to mend it: %s\n", "", check.fix.c_str());
    }
    puts(healthy ? (checks[0].state == Check::good ? "This host can build and run husk machines."
                                                   : "This host can build husk machines, and run them in QEMU without KVM (slower).")
                 : "This host needs the above before husk works.");
  }
  return healthy ? 0 : 1;
}

}  // namespace husk::cli
