"""exp"""
from __future__ import annotations
import numpy as np, torch
from torch import Tensor, nn
import torch.nn.functional as F
from .windows import *

class Attn(nn.Module):
    def __init__(s, block, win, mask, wide=0):
        super().__init__()
        a=block.attn; heads=getattr(a,'heads',None) or a.num_heads
        C=a.proj.in_features; hw=C//heads; s.h=heads; s.win=(win.count,win.tokens); s.C=C
        s.mask=mask if win.masked else 'none'
        W=a.qkv.weight.detach(); b=a.qkv.bias.detach()
        wq,wk,wv=W.chunk(3); bq,bk,bv=b.chunk(3)
        sc=hw**-0.5
        wq=wq*sc; bq=bq*sc
        ex={'signs':4}.get(s.mask,0)
        qw=max(wide,hw+ex) if not(s.mask=='signs' and wide==0) else hw+ex
        s.qw=qw; s.hw=hw
        def pad(w,n): 
            w=w.view(heads,hw,-1); return torch.cat([w,w.new_zeros(heads,n-hw,w.shape[2])],1).reshape(heads*n,-1)
        s.wq=nn.Parameter(pad(wq,qw).t().contiguous()); s.bq=nn.Parameter(pad(bq[:,None],qw)[:,0])
        s.wk=nn.Parameter(pad(wk,qw).t().contiguous()); s.wv=nn.Parameter(wv.t().contiguous())
        s.wp=nn.Parameter(a.proj.weight.detach().t().contiguous()); s.bp=nn.Parameter(a.proj.bias.detach()+a.proj.weight.detach()@bv)
        n=win.tokens
        s.bias=nn.Parameter(a.relative_position_bias_table.detach()[a.relative_position_index[:n,:n]].permute(2,0,1)[None].contiguous())
        sides=torch.from_numpy(win.sides.copy())
        if s.mask=='where':
            ids=sum(sides[...,i].long()*2**i for i in range(sides.shape[-1])).to(torch.int32)
            s.register_buffer('ids',ids)
        if s.mask=='const':
            ids=sum(sides[...,i].long()*2**i for i in range(sides.shape[-1]))
            s.register_buffer('m',torch.where(ids[:,None,:,None]==ids[:,None,None,:],0.,-100.))
        if s.mask=='signs':
            sg=sides.float()*2-1; na=sg.shape[-1]
            k=torch.zeros(win.count,1,n,qw); q=k.clone()
            k[:,0,:,hw:hw+na]=sg; k[:,0,:,hw+na]=1; q[:,0,:,hw:hw+na]=50*sg; q[:,0,:,hw+na]=-50*na
            s.register_buffer('ks',k); s.register_buffer('qs',q)
    def forward(s,x):
        W,n=s.win
        q=(x@s.wq+s.bq); k=x@s.wk; v=x@s.wv
        return s.rest(q,k,v)
    def rest(s,q,k,v):
        W,n=s.win
        q=q.view(W,n,s.h,s.qw).permute(0,2,1,3); k=k.view(W,n,s.h,s.qw).permute(0,2,1,3); v=v.view(W,n,s.h,s.hw).permute(0,2,1,3)
        if s.mask=='signs': q=q+s.qs; k=k+s.ks
        sc=q@k.transpose(-1,-2)+s.bias
        if s.mask=='where': sc=sc+torch.where(s.ids[:,None,:,None]==s.ids[:,None,None,:],0.,-100.)
        if s.mask=='const': sc=sc+s.m
        o=torch.softmax(sc,-1)@v
        return o.permute(0,2,1,3).reshape(W*n,s.C)@s.wp+s.bp

class Packed(Attn):
    """one matmul + split"""
    def __init__(s,*a,**k):
        super().__init__(*a,**k)
        s.w=nn.Parameter(torch.cat([s.wq,s.wk,s.wv],1)); s.b=nn.Parameter(torch.cat([s.bq,torch.zeros(s.wk.shape[1]+s.wv.shape[1])]))
        s.sizes=[s.wq.shape[1],s.wk.shape[1],s.wv.shape[1]]
        del s.wq,s.wk,s.wv,s.bq
    def forward(s,x):
        return s.rest(*torch.split(x@s.w+s.b,s.sizes,-1))

class Gathered(nn.Module):
    """padded: gather in/out"""
    def __init__(s,inner,idx_in,idx_out,rows,C):
        super().__init__(); s.inner=inner; s.register_buffer('i',idx_in); s.register_buffer('o',idx_out); s.register_buffer('z',torch.zeros(1,C))
    def forward(s,x):
        x=torch.cat([x,s.z]); a=s.inner
        q,k,v=torch.split(x@a.w+a.b,a.sizes,-1) if hasattr(a,'w') else (x@a.wq+a.bq,x@a.wk,x@a.wv)
        o=a.rest(*(torch.index_select(t,0,s.i) for t in (q,k,v)))
        return torch.index_select(o,0,s.o)

class Block(nn.Module):
    def __init__(s,b,attn): 
        super().__init__(); s.n1=b.norm1;s.n2=b.norm2;s.mlp=b.mlp;s.attn=attn
    def forward(s,x):
        x=x+s.attn(s.n1(x)); return x+s.mlp(s.n2(x))

class Take(nn.Module):
    def __init__(s,i): super().__init__(); s.register_buffer('i',torch.from_numpy(i))
    def forward(s,x): return torch.index_select(x,0,s.i)

def build(blocks,grid,mask,kind=Packed,stream=True,wide=0):
    N=int(np.prod(grid)); order=np.arange(N); steps=[]
    for b in blocks:
        win=plan_windows(tuple(grid),b.window,b.shifted)
        flat=win.slots.reshape(-1)
        inner=kind(b,win,mask,wide)
        if not win.padded and stream:
            inv=np.empty(N,np.int64); inv[order]=np.arange(N)
            if (flat!=order).any(): steps.append(Take(inv[flat]))
            order=flat; steps.append(Block(b,inner))
        else:
            inv=np.empty(N+1,np.int64); inv[order]=np.arange(N); inv[N]=N
            idx=inv[np.where(flat==PADDING,N,flat)]
            out=np.empty(N,np.int64); ok=flat!=PADDING; out[inv[flat[ok]]]=np.nonzero(ok)[0]
            steps.append(Block(b,Gathered(inner,torch.from_numpy(idx),torch.from_numpy(out),N,b.norm1.weight.numel())))
    if (order!=np.arange(N)).any():
        inv=np.empty(N,np.int64); inv[order]=np.arange(N); steps.append(Take(inv))
    return nn.Sequential(*steps)

class StaticSwin(nn.Module):
    def __init__(s,swin,grid,mask,**k):
        super().__init__(); s.pe=swin.patch_embed; s.grid=grid; s.C=swin.width
        s.blocks=build([*swin.layers1[0].blocks,*swin.layers2[0].blocks],grid,mask,**k)
    def forward(s,x):
        x=s.pe(x).reshape(s.C,-1).transpose(0,1)
        x=F.layer_norm(s.blocks(x),(s.C,))
        return x.transpose(0,1).reshape(1,s.C,*s.grid)

class PReLUm(nn.Module):
    def __init__(s,p): super().__init__(); s.a=nn.Parameter(p.weight.detach().view(1,-1,1,1,1))
    def forward(s,x): return torch.relu(x)+s.a*torch.clamp(x,max=0)
