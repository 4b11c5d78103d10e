// What differs between processors and C libraries outside the kernels: the pause instruction, the
// mode of the floating-point unit, the allocator. The only place of this folder with #if on either.
#pragma once

#include <cstdint>

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quire {

// Gives what was freed back to the system: after a phase that needed much more than what follows.
inline void release_freed_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

// Tells the core that this is a spin loop.
inline void cpu_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// The rounding and denormal mode of this thread: IEEE means round to nearest, denormals kept,
// exceptions masked. Result bits must not depend on which thread computes, so the thread pool puts
// every thread into this mode, the caller included, for the time of a run.
class IeeeFloatMode {
 public:
#if defined(__x86_64__)
  IeeeFloatMode() : saved_(_mm_getcsr()) {
    if ((saved_ & ~0x3fU) != kIeee) _mm_setcsr(kIeee);
  }
  ~IeeeFloatMode() {
    if ((saved_ & ~0x3fU) != kIeee) _mm_setcsr(static_cast<unsigned>(saved_));
  }
#elif defined(__aarch64__)
  IeeeFloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    if (saved_ != 0) asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
  }
  ~IeeeFloatMode() {
    if (saved_ != 0) asm volatile("msr fpcr, %0" ::"r"(saved_));
  }
#endif
  IeeeFloatMode(const IeeeFloatMode&) = delete;
  IeeeFloatMode& operator=(const IeeeFloatMode&) = delete;

 private:
  static constexpr uint64_t kIeee =
      0x1f80;  // MXCSR: all exceptions masked, nearest, no FTZ, no DAZ
  uint64_t saved_ = 0;
};

}  // namespace quire
