// SPDX-License-Identifier: Apache-2.0
#include "cpu_x86.h"
#include <asm/kvm_para.h>
#include <criterion/criterion.h>

static const struct kvm_cpuid_entry2 *leaf(
    const struct cpu_x86_cpuid *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->head.nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static struct cpu_x86_cpuid host;

static void ask_host(void)
{
    struct kvm kvm;
    struct thaw_error error;
    if (kvm_open(&kvm, 0, &error) < 0)
        cr_skip_test("no KVM: %s", error.message);
    cr_assert_eq(cpu_x86_template(&kvm, &host, &error), 0, "%s", error.message);
    kvm_close(&kvm);
}

TestSuite(cpu_x86, .init = ask_host);

Test(cpu_x86, guests_see_no_asynchronous_page_faults_nor_nested_virtualisation)
{
    const struct kvm_cpuid_entry2 *kvm_features = leaf(&host, 0x40000001, 0);
    cr_assert_not_null(kvm_features);
    cr_assert_eq(kvm_features->eax & (1u << KVM_FEATURE_ASYNC_PF), 0);
    cr_assert_eq(kvm_features->eax & (1u << KVM_FEATURE_ASYNC_PF_INT), 0);
    cr_assert_eq(leaf(&host, 1, 0)->ecx & (1u << 5), 0);
    cr_assert_eq(leaf(&host, 0x80000001, 0)->ecx & (1u << 2), 0);
    cr_assert(leaf(&host, 1, 0)->ecx >> 31, "the hypervisor bit is set");
}

Test(cpu_x86, every_vcpu_has_its_own_apic_id_everywhere)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 7, 16};
    for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
        for (uint32_t i = 0; i < counts[c]; i++) {
            struct cpu_x86_cpuid own = host;
            cpu_x86_specialise(&own, i, counts[c]);
            cr_assert_eq(leaf(&own, 1, 0)->ebx >> 24, i);
            cr_assert_eq(leaf(&own, 0xb, 0)->edx, i);
            cr_assert_eq(leaf(&own, 0xb, 1)->edx, i);
            cr_assert_eq(leaf(&own, 0xb, 1)->ebx & 0xffff, counts[c]);
            cr_assert_geq(1u << leaf(&own, 0xb, 1)->eax, counts[c]);
            cr_assert_eq(leaf(&own, 0xb, 2)->ecx >> 8, 0, "the list of levels ends");
            cr_assert_eq(leaf(&own, 1, 0)->edx >> 28 & 1, counts[c] > 1);
            cr_assert_null(leaf(&own, 0x1f, 0));
        }
    }
}

Test(cpu_x86, specialising_twice_gives_the_same_as_once)
{
    struct cpu_x86_cpuid once = host, twice = host;
    cpu_x86_specialise(&once, 1, 4);
    cpu_x86_specialise(&twice, 3, 16);
    cpu_x86_specialise(&twice, 1, 4);
    cr_assert_eq(once.head.nent, twice.head.nent);
    cr_assert_eq(leaf(&twice, 0xb, 1)->ebx, 4);
    cr_assert_eq(leaf(&twice, 1, 0)->ebx, leaf(&once, 1, 0)->ebx);
}

Test(cpu_x86, processors_differ_by_more_than_what_registers_show)
{
    struct cpu_x86_cpuid other = host;
    cr_assert(cpu_x86_same(&host, other.entries, other.head.nent));
    ((struct kvm_cpuid_entry2 *)leaf(&other, 1, 0))->ecx ^= 1u << 27;
    cr_assert(cpu_x86_same(&host, other.entries, other.head.nent), "OSXSAVE shows CR4");
    ((struct kvm_cpuid_entry2 *)leaf(&other, 1, 0))->ecx ^= 1u << 30;
    cr_assert_not(cpu_x86_same(&host, other.entries, other.head.nent), "a feature is missing");
    other = host;
    cr_assert_not(cpu_x86_same(&host, other.entries, other.head.nent - 1));
    ((struct kvm_cpuid_entry2 *)leaf(&other, 1, 0))->ebx ^= 1u << 24;
    cr_assert_not(cpu_x86_same(&host, other.entries, other.head.nent), "another APIC id");
}

static struct kvm_cpuid_entry2 *changeable(struct cpu_x86_cpuid *cpuid, uint32_t function)
{
    for (uint32_t i = 0; i < cpuid->head.nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == 0)
            return &cpuid->entries[i];
    cr_assert_fail("no leaf 0x%x", function);
    return NULL;
}

Test(cpu_x86, what_a_host_lacks_is_listed_and_nothing_else)
{
    struct cpu_x86_cpuid guest = host, poorer = host;
    char list[256] = "";
    cpu_x86_list_missing(&host, guest.entries, guest.head.nent, list, sizeof(list));
    cr_assert_str_eq(list, "");

    /* A richer host is fine, and so is what a guest has switched on. */
    changeable(&guest, 1)->ecx &= ~1u;
    changeable(&guest, 1)->ecx |= 1u << 27;
    cpu_x86_list_missing(&host, guest.entries, guest.head.nent, list, sizeof(list));
    cr_assert_str_eq(list, "");

    changeable(&guest, 1)->ecx |= 1u | 1u << 19;
    changeable(&poorer, 1)->ecx &= ~(1u | 1u << 19);
    changeable(&poorer, 0)->ebx ^= 1;
    cpu_x86_list_missing(&poorer, guest.entries, guest.head.nent, list, sizeof(list));
    cr_assert_str_eq(list, "a processor of the same vendor, sse3, sse4.1");
}
