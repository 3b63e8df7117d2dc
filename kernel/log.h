// Kernel log: lines go to the control console as records, before that through the nub. No log files, no ring buffer to read.
#pragma once

#include <span>

#include "base/types.h"

namespace husk {

enum class LogLevel : unsigned char { error, warning, info, debug };
void log(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));
void set_log_level(LogLevel level);
// Where lines go from now on: the level as a byte, then the text.
using LogSink = void (*)(std::span<const u8> line);
void set_log_sink(LogSink sink);

}  // namespace husk
