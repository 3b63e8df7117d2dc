// Opens an image file, checks every offset in it, maps it into a machine and builds the machine's first state.
//
// The image is untrusted as far as the monitor is concerned: a bad one gives a MonitorError that says what is wrong, never a
// bad access. Called by vmm/monitor, and by tests with images made in memory (memfd).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "abi/image_format.h"
#include "abi/machine_state.h"
#include "vmm/kvm/vm.h"

namespace husk::vmm {

class ImageFile {
 public:
  // Throws MonitorError. `name` is for messages.
  static ImageFile open(const std::string& path);
  static ImageFile from_fd(FileDescriptor fd, const std::string& name);

  // The file as load_machine() wants it with `shadow_paging`; somebody must have called work() and all who did be done before that.
  const std::shared_ptr<FileWithCopy>& with_copy();

  const abi::ImageHeader& header() const { return header_; }
  u64 size() const { return size_; }
  int fd() const { return fd_.get(); }

 private:
  FileDescriptor fd_;
  u64 size_ = 0;
  abi::ImageHeader header_{};
  std::shared_ptr<FileWithCopy> with_copy_;
};

// nullptr if the header of a file of `size` bytes is sound, else what is wrong with it.
const char* check_image_header(const abi::ImageHeader& header, u64 size);

struct LoadOptions {
  u64 ram_size;                     // bytes, multiple of 4096
  std::span<const u8> config;       // boot configuration (boot_config.h); empty: the image's default
  std::span<const u8, 32> entropy;  // from the host's generator
  std::span<const abi::DeviceWindow> windows;
  abi::CpuFeatures features;   // Vcpu::features()
  u64 start_tsc;               // 0: now
  bool shadow_paging = false;  // ring 0 is emulated here (TableEditor::worthwhile) and the caller serves kMonitorTables
};

struct LoadedMachine {
  abi::CpuState cpu;      // for Vcpu::load
  PhysAddr monitor_page;  // abi::MonitorPage in RAM
  PhysAddr boot_info;
  PhysAddr nub_state, vcpu_shared;  // for TableEditor
};

// Adds RAM at 0 and the image at kMonitorImageAddress to the machine's memory, builds the first state, installs the memory slots.
LoadedMachine load_machine(Vm& vm, ImageFile& image, const LoadOptions& options);

}  // namespace husk::vmm
