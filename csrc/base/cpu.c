/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cpu.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "slm.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#if !defined(__linux__)
/* 0: the system does not tell. */
static int system_number(const char *name) {
    int number = 0;
#if defined(__APPLE__)
    size_t size = sizeof number;
    if (sysctlbyname(name, &number, &size, NULL, 0)) number = 0;
#else
    (void)name;
#endif
    return number;
}
#endif

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows f16c; its registers are those of AVX2. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
bool slm_cpu_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
/* Nor does every one know avxvnni, whose registers are those of AVX2, too: bit 4 of EAX. */
bool slm_cpu_has_avx_vnni(void) {
    unsigned a, b, c, d;
    return slm_cpu_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 4);
}
bool slm_cpu_has_avx512_vnni(void) {
    return slm_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
bool slm_cpu_has_avx512_bf16(void) {
    return slm_cpu_has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}
#elif defined(__aarch64__) && defined(__linux__)
bool slm_cpu_has_dotprod(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}
bool slm_cpu_has_i8mm(void) {
    return slm_cpu_has_dotprod() && getauxval(AT_HWCAP2) & HWCAP2_I8MM;
}
#elif defined(__aarch64__)
bool slm_cpu_has_dotprod(void) {
    return system_number("hw.optional.arm.FEAT_DotProd") > 0;
}
bool slm_cpu_has_i8mm(void) {
    return slm_cpu_has_dotprod() && system_number("hw.optional.arm.FEAT_I8MM") > 0;
}
#endif

#if defined(__linux__)

enum { MAX_CPUS = 4096 };

/* The CPUs of the affinity mask into set; how many. */
static int read_affinity(bool set[MAX_CPUS]) {
    memset(set, 0, MAX_CPUS * sizeof *set);
    _Alignas(unsigned long) unsigned char mask[MAX_CPUS / 8] = {0};
    int count = 0;
    if (sched_getaffinity(0, sizeof mask, (cpu_set_t *)mask) == 0) {
        for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
            set[cpu] = mask[cpu / 8] >> cpu % 8 & 1;
            count += set[cpu];
        }
    }
    return count;
}

int slm_cpu_affinity(void) {
    bool set[MAX_CPUS];
    int count = read_affinity(set);
    return count ? count : 1;
}

/* A core is counted at its first sibling; without the system's word each CPU is a core. */
int slm_cpu_physical_cores(void) {
    bool set[MAX_CPUS];
    read_affinity(set);
    int cores = 0;
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!set[cpu]) continue;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        FILE *file = fopen(path, "r");
        bool first = true;
        if (file) {
            int low, high;
            for (char separator = ','; separator == ',' && fscanf(file, "%d", &low) == 1;) {
                high = low;
                if (fscanf(file, "%c", &separator) != 1) separator = 0;
                if (separator == '-' && (fscanf(file, "%d", &high) != 1 || fscanf(file, "%c", &separator) != 1)) separator = 0;
                for (int sibling = low; sibling <= high && sibling < cpu; sibling++)
                    first = first && !(sibling >= 0 && set[sibling]);
            }
            fclose(file);
        }
        cores += first;
    }
    return cores ? cores : 1;
}

static double read_quota(const char *directory, bool v2) {
    char path[600];
    long long quota = -1, period = 0;
    snprintf(path, sizeof path, v2 ? "%s/cpu.max" : "%s/cpu.cfs_quota_us", directory);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int fields = fscanf(file, v2 ? "%lld %lld" : "%lld", &quota, &period); /* "max" is no number: no quota */
    fclose(file);
    if (!v2 && fields == 1) {
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
        file = fopen(path, "r");
        if (!file) return 0;
        fields += fscanf(file, "%lld", &period);
        fclose(file);
    }
    return fields == 2 && quota > 0 && period > 0 ? (double)quota / (double)period : 0;
}

/* The smallest quota from the process's own group up to the root. */
static double walk_quota(const char *root, char *group, bool v2) {
    double least = 0;
    for (;;) {
        char directory[512];
        snprintf(directory, sizeof directory, "%s%s", root, group);
        double quota = read_quota(directory, v2);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

int slm_cpu_quota(void) {
    FILE *file = fopen("/proc/self/cgroup", "r");
    if (!file) return 0;
    double least = 0;
    char line[512];
    while (fgets(line, sizeof line, file)) { /* hierarchy:controllers:path */
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        controllers++;
        bool v2 = !*controllers;
        if (!v2 && strcmp(controllers, "cpu") && strcmp(controllers, "cpu,cpuacct") && strcmp(controllers, "cpuacct,cpu"))
            continue;
        double quota = walk_quota(v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu", group, v2);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
    }
    fclose(file);
    if (least == 0) return 0;
    return least < 1 ? 1 : (int)least;
}

#else

static int system_count(const char *name) {
    int count = system_number(name);
    return count > 0 ? count : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int slm_cpu_affinity(void) {
    return system_count("hw.logicalcpu");
}
int slm_cpu_physical_cores(void) {
    return system_count("hw.perflevel0.physicalcpu"); /* the fast ones: a barrier waits for the slowest thread */
}
int slm_cpu_quota(void) {
    return 0;
}

#endif

int slm_thread_count(void) {
    int threads = slm_cpu_affinity(), cores = slm_cpu_physical_cores(), quota = slm_cpu_quota();
    if (cores < threads) threads = cores;
    if (quota && quota < threads) threads = quota;
    return threads;
}
