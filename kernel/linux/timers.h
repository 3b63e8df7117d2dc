// Timers that send signals: what the death of a process must stop.
#pragma once
#undef linux

namespace husk::linux {

struct Process;
void delete_timers(Process& process);  // timer_create(2) and setitimer(2)

}  // namespace husk::linux
