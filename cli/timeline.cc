// See cli/timeline.h.
#include "cli/timeline.h"

#include <stdio.h>
#include <time.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace husk::cli {

u64 monotonic_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<u64>(time.tv_sec) * 1000000000 + static_cast<u64>(time.tv_nsec);
}

std::string Timeline::describe(const vmm::MonitorResult& result, bool json) const {
  struct Event {
    const char *name, *key;
    double ms;
  };
  std::vector<Event> events;
  const vmm::MonitorTimeline& machine = result.timeline;
  auto host = [&](const char* name, const char* key, u64 ns) {
    if (ns != 0) events.push_back({name, key, (static_cast<double>(ns) - static_cast<double>(command_start_ns)) / 1e6});
  };
  // The guest reads the same TSC as we do, or one that counts at the same rate: its times can be put between ours.
  auto guest = [&](const char* name, const char* key, u64 tsc) {
    if (tsc == 0 || machine.tsc_frequency == 0 || machine.first_instruction_ns == 0) return;
    double since_first = (static_cast<double>(tsc) - static_cast<double>(machine.first_instruction_tsc)) / static_cast<double>(machine.tsc_frequency);
    double first = (static_cast<double>(machine.first_instruction_ns) - static_cast<double>(command_start_ns)) / 1e6;
    events.push_back({name, key, first + since_first * 1e3});
  };
  host(kvm ? "virtual machine created" : "QEMU started", "vm_created", machine.vm_created_ns);
  host("image ready", "image_ready", image_ready_ns);
  host("image loaded", "loaded", machine.loaded_ns);
  host("first guest instruction", "first_instruction", machine.first_instruction_ns);
  if (result.exit_record) {
    guest("kernel started", "kernel_start", result.exit_record->tsc_kernel_start);
    guest("program's entry", "program_start", result.exit_record->tsc_program_start);
    guest("program's exit", "program_exit", result.exit_record->tsc_program_exit);
  }
  host("machine off", "ended", machine.ended_ns);
  host("command's end", "command_end", monotonic_ns());
  if (json) {
    nlohmann::json out;
    for (const Event& event : events) out["timeline_ms"][event.key] = event.ms;
    out["status"] = result.status;
    out["interrupts"] = result.interrupts;
    out["doorbells"] = result.doorbells;
    if (result.exit_record) {
      out["memory_used_peak"] = result.exit_record->memory_used_peak;
      out["syscalls_called"] = result.exit_record->syscalls_called;
      out["syscalls_trapped"] = result.exit_record->syscalls_trapped;
      out["page_faults"] = result.exit_record->page_faults;
    }
    return out.dump() + "\n";
  }
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.ms < b.ms; });
  std::string text = "husk: timeline (ms since the command began)\n";
  char line[160];
  for (const Event& event : events) {
    snprintf(line, sizeof(line), "  %9.3f  %s\n", event.ms, event.name);
    text += line;
  }
  if (result.exit_record) {
    const abi::ExitRecord& record = *result.exit_record;
    snprintf(line, sizeof(line), "  memory used at most %.1f MiB; system calls: %lu called, %lu trapped; page faults: %lu\n",
             static_cast<double>(record.memory_used_peak) / kMiB, record.syscalls_called, record.syscalls_trapped, record.page_faults);
    text += line;
  }
  return text;
}

}  // namespace husk::cli
