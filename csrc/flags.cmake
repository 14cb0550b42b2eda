# The flags are part of the arithmetic: no contraction, so that every instruction set gives the same bits.
add_library(rmr_flags INTERFACE)
target_compile_options(rmr_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-O3 -ffp-contract=off -fno-math-errno -fno-trapping-math>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${RMR_WERROR}>>:-Werror>
  $<$<COMPILE_LANGUAGE:CUDA>:-O3 --fmad=false -Xcompiler=-Wall,-Wextra,-ffp-contract=off>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${RMR_WERROR}>>:-Werror=all-warnings -Xcompiler=-Werror>)
