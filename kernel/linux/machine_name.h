// How this kernel names itself: uname(2), /proc/sys/kernel/*, /proc/version.
#pragma once
#undef linux

#include <string_view>

namespace husk::linux {

// A release that programs know: features are looked for by version number as much as by trying.
constexpr std::string_view kKernelRelease = "6.1.0-husk", kKernelVersion = "#1 SMP husk 0.1.0";

const char* get_host_name();
const char* get_domain_name();
void set_host_name(std::string_view name);

}  // namespace husk::linux
