// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Ways for a kernel to die: `echo null-deref > /proc/kdump_trigger`.
 *
 * Only for guests that are to be crashed: `kdump-rs rehearse` builds this against the kernel's
 * headers and loads it there. Each way is a function of its own, whose name a report of the crash
 * must give. Nothing here asks for a kernel version; what is used is as it was in 5.10.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* SDM volume 3, "Local APIC Register Address Map" and "x2APIC Register Address Space". */
#define KDUMP_MSR_APIC_BASE	0x1b
#define KDUMP_X2APIC_ENABLED	(1u << 10)
#define KDUMP_APIC_ADDRESS	0xfee00000ul
#define KDUMP_APIC_ID		0x20
#define KDUMP_APIC_ICR		0x300
#define KDUMP_APIC_ICR_HIGH	0x310
#define KDUMP_MSR_X2APIC_ID	0x802
#define KDUMP_MSR_X2APIC_ICR	0x830
#define KDUMP_ICR_NMI_ASSERT	0x4400u

/* A call that the compiler can neither drop nor turn into a jump: the caller stays on the stack. */
#define KDUMP_KEEP_FRAME()	asm volatile("" ::: "memory")

void kdump_trigger_null_deref(void);
void kdump_trigger_bug(void);
void kdump_trigger_panic_in_irq(struct irq_work *work);
void kdump_trigger_nmi(void);
void kdump_trigger_hung_task(void);
void kdump_trigger_soft_lockup(void);
int kdump_trigger_stack_overflow(int depth);

noinline void kdump_trigger_null_deref(void)
{
	int *nothing = NULL;

	OPTIMIZER_HIDE_VAR(nothing);
	WRITE_ONCE(nothing[2], 1);
}

noinline void kdump_trigger_bug(void)
{
	BUG();
}

/* Runs in the interrupt that a CPU sends to itself. */
noinline void kdump_trigger_panic_in_irq(struct irq_work *work)
{
	WARN_ON(!in_hardirq());
	panic("kdump_trigger: panic in interrupt");
}

static struct irq_work kdump_trigger_work;

static u64 kdump_read_msr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (u64)high << 32 | low;
}

static void kdump_write_msr(u32 msr, u64 value)
{
	asm volatile("wrmsr" :: "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

/* An NMI of no known reason to this very CPU, as a machine's NMI button sends one. */
noinline void kdump_trigger_nmi(void)
{
	void __iomem *apic;

	preempt_disable();
	if (kdump_read_msr(KDUMP_MSR_APIC_BASE) & KDUMP_X2APIC_ENABLED) {
		u64 id = kdump_read_msr(KDUMP_MSR_X2APIC_ID);

		kdump_write_msr(KDUMP_MSR_X2APIC_ICR, id << 32 | KDUMP_ICR_NMI_ASSERT);
	} else {
		preempt_enable();
		apic = ioremap(KDUMP_APIC_ADDRESS, PAGE_SIZE);
		if (!apic)
			return;
		preempt_disable();
		writel(readl(apic + KDUMP_APIC_ID), apic + KDUMP_APIC_ICR_HIGH);
		writel(KDUMP_ICR_NMI_ASSERT, apic + KDUMP_APIC_ICR);
	}
	/* It comes at once or, emulated, a little later. */
	for (;;)
		cpu_relax();
}

static DECLARE_COMPLETION(kdump_trigger_never);

noinline void kdump_trigger_hung_task(void)
{
	wait_for_completion(&kdump_trigger_never);
	KDUMP_KEEP_FRAME();
}

noinline void kdump_trigger_soft_lockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

noinline int kdump_trigger_stack_overflow(int depth)
{
	char local[256];

	memset(local, depth, sizeof(local));
	OPTIMIZER_HIDE_VAR(depth);
	if (depth < INT_MAX)
		depth = kdump_trigger_stack_overflow(depth + 1);
	barrier_data(local);
	return depth + local[depth & 255];
}

static noinline ssize_t kdump_trigger_write(struct file *file, const char __user *buffer, size_t count,
					    loff_t *position)
{
	char word[32];

	if (count >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buffer, count))
		return -EFAULT;
	word[count] = '\0';
	strim(word);
	if (!strcmp(word, "null-deref"))
		kdump_trigger_null_deref();
	else if (!strcmp(word, "bug"))
		kdump_trigger_bug();
	else if (!strcmp(word, "panic-in-irq"))
		irq_work_queue(&kdump_trigger_work);
	else if (!strcmp(word, "nmi"))
		kdump_trigger_nmi();
	else if (!strcmp(word, "hung-task"))
		kdump_trigger_hung_task();
	else if (!strcmp(word, "soft-lockup"))
		kdump_trigger_soft_lockup();
	else if (!strcmp(word, "stack-overflow"))
		kdump_trigger_stack_overflow(0);
	else
		return -EINVAL;
	return count;
}

static const struct proc_ops kdump_trigger_ops = {
	.proc_write = kdump_trigger_write,
};

static int __init kdump_trigger_init(void)
{
	init_irq_work(&kdump_trigger_work, kdump_trigger_panic_in_irq);
	return proc_create("kdump_trigger", 0200, NULL, &kdump_trigger_ops) ? 0 : -ENOMEM;
}
module_init(kdump_trigger_init);

/* No exit: it is never unloaded. */
MODULE_DESCRIPTION("Crashes the kernel in a chosen way");
MODULE_LICENSE("Dual MIT/GPL");
