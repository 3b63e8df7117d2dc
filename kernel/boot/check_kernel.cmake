# cmake -DKERNEL=kernel.elf -DREADELF=readelf -P check_kernel.cmake: what must be true of a linked kernel.
# Its size is judged in an image: tools/check_sizes.py.
execute_process(COMMAND ${READELF} -rW ${KERNEL} OUTPUT_VARIABLE relocations RESULT_VARIABLE status)
if(status)
  message(FATAL_ERROR "${READELF} ${KERNEL}: ${status}")
endif()
string(REGEX MATCHALL "R_X86_64_[A-Z0-9_]+" kinds "${relocations}")
list(REMOVE_DUPLICATES kinds)
list(REMOVE_ITEM kinds R_X86_64_RELATIVE)
if(kinds)
  message(FATAL_ERROR "${KERNEL}: relocations other than R_X86_64_RELATIVE: ${kinds}")
endif()
