/* SPDX-License-Identifier: Apache-2.0
 * isa.h: regions of a file that are compiled for an instruction set, so that the build itself passes no -m flag.
 *
 *     SLM_TARGET_BEGIN("avx2,fma,f16c")  ... functions ...  SLM_TARGET_END */
#ifndef SLM_KERNELS_ISA_H
#define SLM_KERNELS_ISA_H

#define SLM_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define SLM_TARGET_BEGIN(isa) SLM_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define SLM_TARGET_END        SLM_PRAGMA(clang attribute pop)
#else
#define SLM_TARGET_BEGIN(isa) SLM_PRAGMA(GCC push_options) SLM_PRAGMA(GCC target(isa))
#define SLM_TARGET_END        SLM_PRAGMA(GCC pop_options)
#endif

#define SLM_AVX2        "avx2,fma,f16c"
#define SLM_AVX512      "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
#define SLM_AVX512_BF16 SLM_AVX512 ",avx512bf16"
#if defined(__x86_64__) && __has_include(<avxvnniintrin.h>) /* gcc 11, clang 12; others build without the tier */
#define SLM_AVX2_VNNI "avx2,fma,f16c,avxvnni"
#endif
#if defined(__clang__) /* versions before 16 take no arch= */
#define SLM_DOTPROD "dotprod"
#define SLM_I8MM    "dotprod,i8mm"
#else
#define SLM_DOTPROD "arch=armv8.2-a+dotprod"
#define SLM_I8MM    "arch=armv8.2-a+dotprod+i8mm"
#endif

/* For kernel bodies that are written once with constant parameters and must become straight-line code. */
#define SLM_INLINE static inline __attribute__((always_inline))

/* For the outermost of them, where there are many. Sanitizers watch what is written, not how it is specialised, and their checks
 * at each access of a hundred straight-line copies took clang six minutes: they get one copy, with parameters. */
#if defined(__SANITIZE_ADDRESS__)
#define SLM_INSTANCE static inline
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLM_INSTANCE static inline
#endif
#endif
#if !defined(SLM_INSTANCE)
#define SLM_INSTANCE SLM_INLINE
#endif

/* gcc would make a pointer of each address in a tile and keep two dozen of them in memory. From values that come from nowhere it
 * forms addresses as the instructions can. */
#define SLM_HIDE(x) __asm__("" : "+r"(x))

#endif
